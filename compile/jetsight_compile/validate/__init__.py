"""Validation: gates that compare compiled graphs with the float model, and their controls."""
