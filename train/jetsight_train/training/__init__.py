"""Training of the world model, resumable, and of its heads."""
