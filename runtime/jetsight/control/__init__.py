"""The control loop of a robot: one frame in, one action out, every tick."""
