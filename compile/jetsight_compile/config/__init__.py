"""Compile options: targets and precisions."""
