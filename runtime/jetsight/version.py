"""Version of the distribution; a test compares it with pyproject.toml."""

from __future__ import annotations

__version__ = "0.1.0"
