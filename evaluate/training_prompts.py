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


def training_prompts(run: Run, candidate: str, tokenizer: Any) -> Iterator[str]:
    """Texts of the prompts of iteration 1 up to the candidate's; none for a model that the run did not train.

    A conversation of several turns comes with the template's marks between them; a single question comes bare.
    """
    match = ITERATION.fullmatch(candidate)
    before, after = _frame(tokenizer)
    for number in range(1, int(match[1]) + 1 if match else 1):
        for text in _decoded(run.iteration(number) / "tokens", tokenizer):
            yield text.removeprefix(before).removesuffix(after)


def _frame(tokenizer: Any) -> tuple[str, str]:
    """What the template puts around a single question."""
    question = "What?"
    before, _, after = render_text(tokenizer, [{"role": "user", "content": question}], prompt=True).partition(question)
    return before, after


def _decoded(folder: Path, tokenizer: Any) -> Iterator[str]:
    if not (folder / "index.npz").is_file():
        return  # a run whose tokens were removed to save space
    offsets = np.load(folder / "index.npz")["prompt_offsets"]
    ids = np.memmap(folder / "prompt_ids.bin", dtype=np.int32, mode="r")
    bounds = list(pairwise(offsets))
    for start in range(0, len(bounds), AT_ONCE):
        yield from tokenizer.batch_decode([ids[low:high] for low, high in bounds[start : start + AT_ONCE]])
