"""Closed loop: what a compiled planner does to a live simulator, beside PyTorch and baselines."""
