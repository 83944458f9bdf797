"""Fixtures of all end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockptq_testing.models import SHIPPED, clone_model


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    """A copy of the shipped model that a test may damage."""
    return clone_model(SHIPPED, tmp_path / "model")
