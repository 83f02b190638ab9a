"""Something to publish."""

from pathlib import Path

import pytest
from releases import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")
