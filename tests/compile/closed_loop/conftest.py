"""A bundle that plans, and the checkpoint it was made of: tiny, random, made once."""

from __future__ import annotations

import pytest
from helpers.compile.planning_bundle import Compiled, write_planner


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return write_planner(tmp_path_factory.mktemp("planning"))
