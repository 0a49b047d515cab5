"""Training data: recordings, windows, action blocks and encoded recordings."""
