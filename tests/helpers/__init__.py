"""Helpers of the tests: fakes, factories and small worlds."""
