"""Closed-loop evaluation: a compiled planner in a live simulator, beside PyTorch and baselines."""
