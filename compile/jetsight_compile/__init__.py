"""Turns a checkpoint into graphs, quantizes and gates them, and packs a bundle."""
