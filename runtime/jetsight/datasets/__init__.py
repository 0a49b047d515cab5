"""Recorded robot data: LeRobot datasets and the video decoder they need."""
