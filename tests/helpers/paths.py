"""Where the checkout and the recorded episodes in it are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "calib_data" / "pusht"
