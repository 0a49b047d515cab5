"""Planners: from a goal and the newest history to a plan within limits and a deadline."""
