"""Training data: windows, action blocks and encoded recordings."""
