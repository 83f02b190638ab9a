"""Trains recipe.yaml of the working directory where the main process is slower in each phase than collectives wait.

`torchrun --no-python python slow_main.py`: the process group's timeout is TIMEOUT seconds, and whatever the main process
does alone takes SLOW seconds more. It prints the phases that it went through.
"""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

import kto_release.train.chain
import kto_release.train.checkpoints
import kto_release.train.fit
import kto_release.train.inputs
import kto_release.train.proof
from kto_release import console
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train

TIMEOUT, SLOW = 4.0, 5.5
seen: list[str] = []


def slow(module: Any, name: str) -> None:
    """Let a function of a module take longer than any collective may, the first time that the main process calls it."""
    own = getattr(module, name)

    def slower(*args: Any, **kwargs: Any) -> Any:
        if name not in seen and torch.distributed.get_rank() == 0:
            time.sleep(SLOW)
        if name not in seen:
            seen.append(name)
        return own(*args, **kwargs)

    setattr(module, name, slower)


torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT))
slow(kto_release.train.inputs, "tokenize_each")
slow(kto_release.train.chain, "_check_parent")
slow(kto_release.train.fit, "load_model")
slow(kto_release.train.proof, "prove")
slow(kto_release.train.fit.logps_store, "load")
slow(kto_release.train.checkpoints, "file_sha256")
slow(kto_release.train.fit, "check_trained")
slow(kto_release.train.chain, "_finish")
train(Run.open(load_recipe(Path("recipe.yaml")), Path("runs")))
console.say(f"slow: {' '.join(seen)}")
torch.distributed.destroy_process_group()
