"""Planners as PyTorch references: what the compiled `imagine` graphs must equal."""
