"""The parts of `plan_vs_stable_worldmodel.py`."""
