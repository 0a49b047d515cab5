"""Any recording to a clean LeRobot v3 dataset; the ways in are `plan` and `convert`."""
