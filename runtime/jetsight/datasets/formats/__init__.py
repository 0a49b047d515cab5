"""Formats beside LeRobot's: RLDS, HDF5, ROS bags, donkeycar tubs, videos with CSV tables."""
