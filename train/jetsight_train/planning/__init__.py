"""Planners in PyTorch: the references of the compiled `imagine` graphs."""
