"""One process works on a run at a time, on any file system."""

import errno
import os
import platform
import subprocess
import sys

import pytest
from feedback_files import write_recipe

from kto_release import run as run_module
from kto_release.errors import RunError
from kto_release.recipe_file import load_recipe
from kto_release.run import HELD, Run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run on a file system without locks, as Lustre mounted without -o flock."""

    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_module.fcntl, "flock", none)
    return Run.open(load_recipe(write_recipe(tmp_path, tmp_path / "no-model")), tmp_path / "runs")


def test_a_file_holds_a_run_where_there_are_no_locks(run):
    """A second process is refused meanwhile, and the file is gone afterwards."""
    with run.lock(), pytest.raises(RunError) as caught, run.lock():
        pass
    assert str(caught.value) == (
        f"the run {str(run.path)!r} is in use by another process (process {os.getpid()} on {platform.node()})\n"
        "  to do: wait until it is done, or stop it; the same command then continues. If it was killed, remove "
        f"{str(run.path / HELD)!r}"
    )
    with run.lock():
        pass
    assert [path.name for path in run.path.iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_taken_over(run):
    """On its own machine; of a process of another machine nothing is known."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run.path.mkdir(parents=True)
    (run.path / HELD).write_text(f"process {ended.pid} on {platform.node()}")
    with run.lock():
        assert (run.path / HELD).read_text() == f"process {os.getpid()} on {platform.node()}"
    (run.path / HELD).write_text(f"process {ended.pid} on another-machine")
    with pytest.raises(RunError, match=f"process {ended.pid} on another-machine"), run.lock():
        pass
