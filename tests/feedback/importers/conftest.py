import pytest
from exports import Importer


@pytest.fixture
def importer(monkeypatch, capfd, tmp_path):
    """Imports invented records through the command line."""
    return Importer(monkeypatch, capfd, tmp_path)
