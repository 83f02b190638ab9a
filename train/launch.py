"""`kto-release train --launch CONFIG`: the same training on many devices, through accelerate's own launcher."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from kto_release.errors import RecipeError
from kto_release.train.launch_file import read_devices


def command(config: Path, recipe: Path, overrides: Sequence[str], runs: Path) -> list[str]:
    """The command line that accelerate's launcher gets.

    Raises `RecipeError` where a program or file is missing, or the configuration is of DeepSpeed.
    """
    if not config.is_file():
        raise RecipeError(
            f"no such accelerate configuration: {str(config)!r}",
            expected="a file as `accelerate config` writes it; recipes/accelerate/ has some",
        )
    read_devices(config)
    here = Path(sys.executable).parent
    launcher = shutil.which("accelerate", path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")
    ours = shutil.which("kto-release", path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")
    if launcher is None or ours is None:
        raise RecipeError("accelerate's launcher is not beside this Python", todo="pip install accelerate")
    sets = [part for override in overrides for part in ("--set", override)]
    # --no_python: our own entry point, and never `python -m`, which would put the working folder on the import path.
    return [
        launcher, "launch", "--config_file", str(config), "--no_python",
        ours, "train", str(recipe), "--runs", str(runs), *sets,
    ]  # fmt: skip


def launch(config: Path, recipe: Path, overrides: Sequence[str], runs: Path) -> None:
    """Replace this process by accelerate's launcher."""
    line = command(config, recipe, overrides, runs)
    os.execv(line[0], line)  # noqa: S606 - a program of our own environment, without a shell
