"""The compile pipeline: checkpoint to bundle, one pass after the other."""
