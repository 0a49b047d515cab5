"""The demo: compile the shipped model, stream episodes it never saw, and show what happened."""
