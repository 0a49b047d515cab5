"""Check of recorded data before training; the way in is `survey.examine`."""
