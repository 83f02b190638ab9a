"""What published weights keep of the training, measured in the function and not in the weights.

Training records log pi of some rows of feedback, by the model that it saved and by the initial one. Here the same rows
are computed by the published weights, one sequence at a time and by transformers alone. The slope of the published
log-ratios on the trained ones is the share of the training that is kept; how far single answers are off is the noise.
The same measure serves whatever the weights were narrowed to.
"""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from kto_release import console
from kto_release.errors import ModelError
from kto_release.files import read_record
from kto_release.loading import load_whole
from kto_release.records import Interval

ROWS = "rows.json"
MEASURED = 64
"""Rows of feedback that training records log-probabilities of."""
RESAMPLES = 2000
FEWEST_PROMPTS = 10
"""With fewer prompts an interval by bootstrap does not hold its level."""


class CheckRow(BaseModel):
    """A row of feedback whose log-probability is recorded, as token ids."""

    digest: str
    prompt: list[int]
    completion: list[int]


class CheckRows(BaseModel):
    """`iteration-N/rows.json`."""

    rows: list[CheckRow]


def read_rows(folder: Path) -> list[CheckRow]:
    """The rows that an iteration's training recorded; none for a run that was made before there were any."""
    found = read_record(folder / ROWS, CheckRows)
    return found.rows if found else []


def logprobs(folder: Path, rows: Sequence[CheckRow], *, trust_remote_code: bool = False) -> dict[str, float]:
    """Log pi(completion | prompt) of each row by the model in a folder, summed over the completion's tokens, in nats.

    Computed in fp32, on a GPU where its memory holds the model. Raises `ModelError` where it can't be loaded.
    """
    import torch

    console.quiet_libraries()
    try:
        model: Any = load_whole(folder, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"transformers can't load the model in {folder.name!r}: {str(error).splitlines()[0]}",
            expected="weights, configuration and tokenizer that load by themselves",
        ) from None
    model = model.to(_device(model)).eval()
    found = {}
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([*row.prompt, *row.completion], device=model.device)
            logits = model(ids[None]).logits[0, len(row.prompt) - 1 : -1].float()
            logps = logits.log_softmax(-1).gather(-1, ids[len(row.prompt) :, None])
            found[row.digest] = float(logps.sum(dtype=torch.float64))
    del model
    gc.collect()  # the next model needs the room
    return found


def _device(model: Any) -> str:
    import torch

    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if not torch.cuda.is_available():
        return "cpu"
    free, _ = torch.cuda.mem_get_info()
    return "cuda" if free > 1.2 * needed else "cpu"


def kept(
    trained: Mapping[str, float],
    published: Mapping[str, float],
    initial: Mapping[str, float],
    prompts: Mapping[str, object] | None = None,
) -> Interval | None:
    """Slope through the origin of the published log-ratios on the trained ones; None where training moved no row.

    Args:
        trained: log pi by row, in nats.
        published: the same rows by the published weights.
        initial: the same rows by the initial model.
        prompts: what tells each row's prompt, for the interval: rows of one prompt are not independent.
    """
    rows = sorted(trained.keys() & published.keys() & initial.keys())
    trained_N = np.array([trained[row] - initial[row] for row in rows])
    published_N = np.array([published[row] - initial[row] for row in rows])
    if not rows or not float(trained_N @ trained_N) > 0:
        return None
    groups: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(prompts[row] if prompts else row, []).append(place)
    # Sums within each prompt: the slope of any resample of prompts is a ratio of sums of these.
    products = np.array([[published_N[g] @ trained_N[g], trained_N[g] @ trained_N[g]] for g in groups.values()])
    drawn = np.random.default_rng(0).multinomial(len(groups), [1 / len(groups)] * len(groups), RESAMPLES)
    above, below = (drawn @ products).T
    slopes = above[below > 0] / below[below > 0]
    low, high = np.percentile(slopes, [2.5, 97.5])
    few = len(groups) < FEWEST_PROMPTS
    return Interval(
        value=float(products[:, 0].sum() / products[:, 1].sum()),
        low=float(low),
        high=float(high),
        n=len(rows),
        method="percentile bootstrap over prompts",
        reliable=not few,
        note=f"{len(groups)} prompts" if few else None,
    )


def noise(trained: Mapping[str, float], published: Mapping[str, float]) -> float:
    """Root mean square of log pi_published - log pi_trained over the rows that both hold, in nats per answer."""
    differences = np.array([published[row] - trained[row] for row in sorted(trained.keys() & published.keys())])
    return float(np.sqrt(np.mean(differences**2))) if len(differences) else 0.0
