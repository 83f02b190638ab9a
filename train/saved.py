"""When a folder holds a trained model, and when not."""

from pathlib import Path

import torch

from kto_release.digests import weight_files
from kto_release.errors import RunError
from kto_release.models import stored_weights

SHOWN = 3


def is_complete(folder: Path) -> bool:
    """Whether this is a model's folder: with configuration and weights."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def check_trained(folder: Path, parent: Path) -> None:
    """Raises `RunError` where the weights are not as many as the parent's, or not all finite."""
    from safetensors import safe_open

    own, before = stored_weights(folder).parameters, stored_weights(parent).parameters
    if own < before:
        raise RunError(
            f"the trained model was saved with {own} parameters of {before}",
            todo="run the same command again; the last checkpoint is whole",
        )
    bad = []
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            bad += [name for name in file.keys() if not bool(torch.isfinite(file.get_tensor(name)).all())]  # noqa: SIM118
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise RunError(
            f"after the last step these weights are not finite: {', '.join(bad[:SHOWN])}{more}",
            expected="finite weights; no model was left",
            todo=f"remove {str(folder.parent)!r}, and lower train.learning_rate or set train.max_grad_norm",
        )
