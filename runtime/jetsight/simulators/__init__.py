"""Simulated robots: the adapter to Gymnasium, and small environments of our own."""
