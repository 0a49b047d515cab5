"""Examine this machine and report what jetsight can run on it."""
