"""Helpers for tests of the runtime."""
