"""Recorded data before training: `survey.examine` checks it, `convert.convert` makes it clean."""
