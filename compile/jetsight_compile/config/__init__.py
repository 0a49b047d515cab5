"""Compile options: targets, hardware modules and precisions."""
