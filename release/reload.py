"""The published weights, loaded as any reader loads them, give the log-probabilities that training recorded.

Training records log π of a few rows of feedback for the model that it saved. Here they are computed once more, one
sequence at a time and by transformers alone: for the trained weights, for the published ones, and for the initial
model. The first must be what was recorded; how far the second is from it is what rounding did to the model's function.
"""

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kto_release.errors import ModelError, RunError
from kto_release.files import read_record, write_record
from kto_release.records import IterationRecord, ReloadFacts, WeightFacts
from kto_release.run import Run

Ids = npt.NDArray[np.int32]


class CheckRow(NamedTuple):
    """One row of feedback whose log-probability is recorded."""

    digest: str
    prompt: Ids
    completion: Ids


def check_reload(
    run: Run, record: IterationRecord, weights: WeightFacts, folder: Path, *, source: Path, base: Path
) -> ReloadFacts | None:
    """Log-probabilities of the recorded rows by the trained, the published and the initial weights.

    `folder` holds the published model, complete; the result is kept in the run and reused. None where nothing was
    recorded, or the run no longer holds the tokens of those rows. Raises `ModelError` where a model can't be loaded.
    """
    path = folder.parent / "weights" / "reload.json"
    old = read_record(path, ReloadFacts)
    if old is not None and (old.source_sha256, old.sha256) == (weights.source_sha256, weights.sha256):
        return old
    rows = [row for row in _rows(run, record.iteration) if row.digest in record.logprobs]
    if not rows:
        return None
    code = run.recipe.model.trust_remote_code
    facts = ReloadFacts(
        source_sha256=weights.source_sha256,
        sha256=weights.sha256,
        recorded={row.digest: record.logprobs[row.digest] for row in rows},
        trained=logprobs(source, rows, trust_remote_code=code),
        published=logprobs(folder, rows, trust_remote_code=code),
        initial=logprobs(base, rows, trust_remote_code=code),
    )
    write_record(path, facts)
    return facts


def _rows(run: Run, iteration: int) -> Iterator[CheckRow]:
    """The feedback that log-probabilities may be recorded of: held out, else of the iteration itself."""
    from kto_release.train.tokens import Tokens

    for name in ("held-out", f"iteration-{iteration}"):
        try:
            tokens = Tokens(run.path / name / "tokens")
        except (RunError, OSError, ValueError, KeyError):
            continue
        for number in range(min(len(tokens), 64)):
            yield CheckRow(
                tokens.digest(number), tokens.prompt(int(tokens.prompt_F[number])), tokens.completion(number)
            )


def logprobs(folder: Path, rows: list[CheckRow], *, trust_remote_code: bool = False) -> dict[str, float]:
    """Log π(completion | prompt) of each row, summed over the completion's tokens, computed in fp32 on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"transformers can't load the model in {folder.name!r}: {str(error).splitlines()[0]}",
            expected="weights, configuration and tokenizer that load by themselves",
        ) from None
    model.eval()
    found = {}
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor(np.concatenate([row.prompt, row.completion]), dtype=torch.long)
            logits = model(ids[None]).logits[0, len(row.prompt) - 1 : -1].float()
            logps = logits.log_softmax(-1).gather(-1, ids[len(row.prompt) :, None])
            found[row.digest] = float(logps.sum(dtype=torch.float64))
    del model
    gc.collect()  # the next model needs the room
    return found


def worst(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Largest difference between two sets of log-probabilities, in nats."""
    return max((abs(value - other[digest]) for digest, value in one.items()), default=0.0)
