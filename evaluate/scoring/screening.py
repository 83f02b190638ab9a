"""Answers that no score should rest on: empty, copied, leaked, looping, cut, or written for the judge.

It runs before anything is judged and decides nothing: rows are flagged and counted, and a pattern over many rows that
wins without answering is called out. One constant answer, written for the judge, wins 76.9% on AlpacaEval's official
leaderboard (NullModel; arXiv:2410.07137).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kto_release.lineage import question_digest
from kto_release.positions import collapsed

KINDS = {
    "empty": "no text",
    "identical": "the same text as the answer to another instruction",
    "near_identical": "nearly the same text as the answer to another instruction",
    "template_marker": "a marker of a chat template or of the judge's prompt",
    "judge_address": "text addressed to the judge",
    "cut": "cut at max_tokens",
    "thoughts": "thoughts before the answer, which are left out",
    "repetition": "repeats itself",
    "much_longer": "more than four times as long as the reference's answer",
    "much_shorter": "less than a quarter as long as the reference's answer",
    "trained_on": "the instruction is among the training prompts",
}
"""What is flagged, in words."""

MARKERS = re.compile(
    r"<\|\w+\|>|\[/?INST\]|<</?SYS>>|</s>|<(?:start|end)_of_turn>|###\s?(?:Instruction|Response):"
    r"|\{(?:output_[12]|instruction)\}"
)
"""Special tokens of common chat templates as text, and the placeholders of alpaca_eval's prompt."""
ADDRESS = re.compile(
    r"\bignore (?:all |any )?(?:of )?(?:the |your )?(?:previous|prior|above|preceding) instructions"
    r"|\boverrid(?:e|ing) (?:the )?(?:above|previous) instructions?"
    r"|\bmodel[_ ]identifier\b|\bOutputs? \([mM]\)|\bmodel outputs \(unordered\)"
    r"|`m` or `M`|\b(?:choose|select|prefer|pick|output) (?:the )?(?:token )?[`\"']?[mM][`\"']?(?=[\s.,:;]|$)"
    r"|\bas (?:the|an?) (?:judge|evaluator|grader), (?:you|please)\b"
    r"|\bthis (?:answer|response|output) is (?:clearly |by far )?(?:the )?(?:better|best|superior)\b"
    r"|\b(?:prefer|rank|rate|choose|pick|select) (?:this|my) (?:answer|response|output)\b",
    re.IGNORECASE,
)
SHINGLE = 5
"""Words of a piece that two answers may share."""
NEAR = 0.7
"""Share of two answers' pieces that are common to both (Jaccard) from which they are nearly the same."""
LOOP_WORDS, LOOP_SHARE = 40, 0.6
"""An answer of at least so many words loops where so much of its 4-word pieces occurred in it before."""
LENGTH_FACTOR = 4.0
CONTAINED_WORDS, CONTAINED_SHARE = 8, 0.8
"""An instruction is trained on where so much of its 8-word pieces stands in one training prompt."""
CONSTANT_SHARE = 0.1
"""Share of all instructions with one and the same answer from which the score is called gamed."""
ADDRESS_SHARE = 0.05
"""Share of answers that speak to the judge from which the score is called gamed."""
BLOCK = 500
"""Answers that are compared with all others at once."""


class Screening(NamedTuple):
    """What was found, in the order of the answers."""

    flags: list[tuple[str, ...]]
    """Kinds (keys of KINDS) of each answer."""
    counts: dict[str, int]
    """Answers by kind; every kind that was looked for is there."""
    gamed: list[str]
    """Reasons to think that the judge was gamed; empty: none found."""


def screen(
    instructions: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[str],
    *,
    cut: Sequence[bool] | None = None,
    thoughts: Sequence[bool] | None = None,
    training_prompts: Iterable[str] | None = (),
    trained_before: Collection[str] = (),
) -> Screening:
    """Screen answers; all sequences hold one item per answer, and an instruction may occur with several answers.

    `cut` tells which answers ended at max_tokens, and `thoughts` before which the model thought; null: unknown. Where
    the training prompts are unknown (null),
    "trained_on" is not counted. `trained_before` are digests of questions that the model's ancestors were trained on.
    """
    rows = range(len(outputs))
    alike = _alike([collapsed(text) for text in instructions], [collapsed(text) for text in outputs])
    trained = _contained(instructions, training_prompts or ())
    trained |= {text for text in instructions if trained_before and question_digest(text) in trained_before}
    found: dict[str, set[int]] = {
        "empty": {i for i in rows if not outputs[i].strip()},
        "identical": {i for i in rows if alike.identical[i] > 0},
        "near_identical": {i for i in rows if alike.near[i] > 0},
        "template_marker": {i for i in rows if MARKERS.search(outputs[i])},
        "judge_address": {i for i in rows if ADDRESS.search(outputs[i])},
        "cut": {i for i in rows if cut is not None and cut[i]},
        "thoughts": {i for i in rows if thoughts is not None and thoughts[i]},
        "repetition": {i for i in rows if repeated_share(outputs[i]) >= LOOP_SHARE},
        "much_longer": {i for i in rows if len(outputs[i]) > LENGTH_FACTOR * max(len(references[i]), 1)},
        "much_shorter": {i for i in rows if 0 < len(outputs[i]) < len(references[i]) / LENGTH_FACTOR},
        "trained_on": {i for i in rows if instructions[i] in trained},
    }
    return Screening(
        flags=[tuple(kind for kind in KINDS if i in found[kind]) for i in rows],
        counts={kind: len(found[kind]) for kind in KINDS if kind != "trained_on" or training_prompts is not None},
        gamed=[*_gamed(instructions, found, alike)],
    )


def repeated_share(text: str) -> float:
    """Share of the 4-word pieces of a text that occurred in it before; 0 for texts of fewer than 40 words."""
    words = text.split()
    if len(words) < LOOP_WORDS:
        return 0.0
    pieces = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return 1 - len(set(pieces)) / len(pieces)


class _Alike(NamedTuple):
    """For each answer, how many other instructions have an answer that is the same, or nearly so."""

    identical: list[int]
    near: list[int]


def _gamed(instructions: Sequence[str], found: dict[str, set[int]], alike: _Alike) -> Iterable[str]:
    distinct = len(set(instructions))
    largest = max((a + b + 1 for a, b in zip(alike.identical, alike.near, strict=True)), default=0)
    if largest >= 3 and largest >= CONSTANT_SHARE * distinct:
        yield f"{largest} of {distinct} instructions have one and the same answer, or nearly so"
    speaking = len(found["judge_address"])
    if speaking >= 3 and speaking >= ADDRESS_SHARE * len(instructions):
        yield f"{speaking} of {len(instructions)} answers are addressed to the judge"


def _alike(instructions: Sequence[str], outputs: Sequence[str]) -> _Alike:
    owners: dict[str, set[str]] = defaultdict(set)
    for instruction, output in zip(instructions, outputs, strict=True):
        owners[output].add(instruction)
    identical = [len(owners[text]) - 1 if text else 0 for text in outputs]
    return _Alike(identical, _near(instructions, outputs))


def _near(instructions: Sequence[str], outputs: Sequence[str]) -> list[int]:
    """How many other instructions have a nearly (not exactly) equal answer, for each answer."""
    import numpy as np
    from scipy.sparse import csr_array

    texts = sorted({text for text in outputs if len(text.split()) >= SHINGLE})
    if len(texts) < 2:
        return [0] * len(outputs)
    names: dict[tuple[str, ...], int] = {}
    pieces = [sorted({names.setdefault(piece, len(names)) for piece in _pieces(text, SHINGLE)}) for text in texts]
    sizes = np.array([len(row) for row in pieces])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    shape = (len(texts), len(names))
    matrix = csr_array((np.ones(ends[-1], np.int32), np.concatenate(pieces), ends), shape=shape)

    holders: dict[str, set[str]] = defaultdict(set)
    for instruction, text in zip(instructions, outputs, strict=True):
        holders[text].add(instruction)
    others: dict[str, set[str]] = defaultdict(set)
    for first in range(0, len(texts), BLOCK):
        common = (matrix[first : first + BLOCK] @ matrix.T).tocoo()
        union = sizes[first + common.row] + sizes[common.col] - common.data
        for row, column in np.column_stack([common.row, common.col])[common.data >= NEAR * union]:
            if first + row != column:
                others[texts[first + row]] |= holders[texts[column]]
    return [len(others[text] - holders[text]) for text in outputs]


def _pieces(text: str, size: int) -> Iterable[tuple[str, ...]]:
    words = text.split()
    return zip(*(words[start:] for start in range(size)), strict=False)


def _contained(instructions: Iterable[str], prompts: Iterable[str]) -> set[str]:
    """The instructions that are a training prompt, or stand in one almost whole; case and whitespace don't matter."""
    wanted = {text: collapsed(text).lower() for text in instructions}
    plain = {text.strip(" .?!"): original for original, text in wanted.items()}
    needed: dict[str, int] = {}
    holding: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for original, text in wanted.items():
        pieces = set(_pieces(text, CONTAINED_WORDS))
        needed[original] = len(pieces)
        for piece in pieces:
            holding[piece].add(original)
    found: set[str] = set()
    for prompt in prompts:
        text = collapsed(prompt).lower()
        if text.strip(" .?!") in plain:
            found.add(plain[text.strip(" .?!")])
        hits = Counter(name for piece in set(_pieces(text, CONTAINED_WORDS)) for name in holding.get(piece, ()))
        found |= {name for name, count in hits.items() if count >= CONTAINED_SHARE * needed[name]}
    return found
