"""The prompts that a model was trained on, read back from the run, to find instructions that are among them."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kto_release.evaluate.candidates import ITERATION
from kto_release.run import Run
from kto_release.templates import render_text

AT_ONCE = 1000


def training_prompts(run: Run, candidate: str, tokenizer: Any) -> list[str] | None:
    """Texts of the prompts of iteration 1 up to the candidate's; none for a model that the run did not train.

    A conversation of several turns comes with the template's marks between them; a single question comes bare.
    Null where the run's tokens were removed to save space: then nobody knows.
    """
    match = ITERATION.fullmatch(candidate)
    folders = [run.iteration(number) / "tokens" for number in range(1, int(match[1]) + 1 if match else 1)]
    if not all((folder / "index.npz").is_file() for folder in folders):
        return None
    before, after = _frame(tokenizer)
    texts = (text for folder in folders for text in _decoded(folder, tokenizer))
    return [text.removeprefix(before).removesuffix(after) for text in texts]


def _frame(tokenizer: Any) -> tuple[str, str]:
    """What the template puts around a single question."""
    question = "What?"
    before, _, after = render_text(tokenizer, [{"role": "user", "content": question}], prompt=True).partition(question)
    return before, after


def _decoded(folder: Path, tokenizer: Any) -> Iterator[str]:
    offsets = np.load(folder / "index.npz")["prompt_offsets"]
    ids = np.memmap(folder / "prompt_ids.bin", dtype=np.int32, mode="r")
    bounds = list(pairwise(offsets))
    for start in range(0, len(bounds), AT_ONCE):
        yield from tokenizer.batch_decode([ids[low:high] for low, high in bounds[start : start + AT_ONCE]])
