"""Helpers for tests of the compiler."""
