"""Inference backends: registry, loading of a bundle's graphs, and the CPU backends."""
