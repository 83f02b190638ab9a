"""What a GGUF file keeps: of the training, and of what the published weights say.

transformers reads the file back, as `gguf` decodes it, and computes with it. The rows are those that training recorded.
"""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kto_release.errors import ReleaseError
from kto_release.kept import CheckRow, kept, noise
from kto_release.loading import FAILURES, first_line, load_whole
from kto_release.records import Facts, Interval


class GgufFacts(Facts):
    """One file, and what it keeps."""

    file: str
    kind: str
    """f32, f16, bf16 or q8_0."""
    bytes: int
    bits_per_weight: float
    kept: Interval | None
    """Slope of its log-ratios on the trained ones; null: not measured."""
    noise: float
    """Root mean square of its answers' log-probabilities against the trained model's, in nats."""
    kl: float | None
    """Mean KL divergence of its next token from the published weights', in nats, over the answers' tokens."""
    top1: float | None
    """Share of these tokens at which both find the same one likeliest."""
    tokens: int


class Recorded(Facts):
    """What training recorded: log pi by row, of the trained and of the initial model."""

    trained: dict[str, float]
    initial: dict[str, float]


def measure(
    folder: Path, file: Path, kind: str, parameters: int, rows: Sequence[CheckRow], recorded: Recorded
) -> GgufFacts:
    """Compare the file with the published weights in `folder`. Raises `ReleaseError` where it can't be read back."""
    found = _compare(folder, file, rows) if rows else _Compared({}, [], [])
    prompts = {row.digest: tuple(row.prompt) for row in rows}
    size = file.stat().st_size
    tokens = len(found.kl)
    return GgufFacts(
        file=file.name,
        kind=kind,
        bytes=size,
        bits_per_weight=8 * size / parameters,
        kept=kept(recorded.trained, found.logps, recorded.initial, prompts),
        noise=noise(recorded.trained, found.logps),
        kl=float(np.mean(found.kl)) if tokens else None,
        top1=float(np.mean(found.same)) if tokens else None,
        tokens=tokens,
    )


class _Compared:
    def __init__(self, logps: Mapping[str, float], kl: list[float], same: list[bool]) -> None:
        self.logps, self.kl, self.same = dict(logps), kl, same


def _compare(folder: Path, file: Path, rows: Sequence[CheckRow]) -> _Compared:
    import torch

    published = load_whole(folder, dtype=torch.float32).eval()
    written = _read_back(file).eval()
    found = _Compared({}, [], [])
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([*row.prompt, *row.completion])
            answer = slice(len(row.prompt) - 1, -1)
            one_TV, other_TV = (
                model(ids[None]).logits[0, answer].float().log_softmax(-1) for model in (published, written)
            )
            logps_T = other_TV.gather(-1, ids[len(row.prompt) :, None])
            found.logps[row.digest] = float(logps_T.sum(dtype=torch.float64))
            found.kl += (one_TV.exp() * (one_TV - other_TV)).sum(-1).tolist()
            found.same += (one_TV.argmax(-1) == other_TV.argmax(-1)).tolist()
    del published, written
    gc.collect()
    return found


def _read_back(file: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except FAILURES as error:
        raise ReleaseError(f"{file.name!r} does not read back: {first_line(error)}") from None
