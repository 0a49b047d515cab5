"""Writing, checking and explaining recipes."""
