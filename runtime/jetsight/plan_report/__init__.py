"""One plan explained: chosen from recorded frames, run, reported and drawn."""
