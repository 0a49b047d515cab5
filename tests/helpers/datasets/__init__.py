"""Recordings as other projects write them, small ones."""
