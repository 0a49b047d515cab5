"""Recording simulated robots as LeRobot v3 datasets; the way in is `record.collect.collect`."""
