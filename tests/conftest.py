"""Settings every test shares."""

from __future__ import annotations

import hypothesis

# Time limits per example measure how busy the machine is, not the code.
hypothesis.settings.register_profile("jetsight", deadline=None)
hypothesis.settings.load_profile("jetsight")
