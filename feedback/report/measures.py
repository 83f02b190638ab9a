"""Numbers on feedback before anything is trained: how much of what, and what predicts the label besides quality."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kto_release.feedback.rows import TOOLS, Feedback
from kto_release.positions import instruction_hash

AGREEMENT = re.compile(
    r"you('| a)re (absolutely |completely |so )?right|(great|good|excellent) (question|point|idea)"
    r"|i (completely |fully |totally )?agree",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"\bi('m| am) (sorry|unable)|\bi (can't|cannot|can not|won't) (help|assist|do|provide|answer)"
    r"|as an ai\b|\bi must decline",
    re.IGNORECASE,
)
PRIVATE = {
    "e-mail addresses": re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+\b"),
    "keys and tokens": re.compile(
        r"\b(sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{30,}|AKIA[A-Z0-9]{16}|xox[abp]-[\w-]{10,})"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    ),
    "phone numbers": re.compile(r"(?<![\w.])\+\d{1,3}[ ().-]?(\d[ ().-]?){7,12}\d(?!\w)"),
    "IP addresses": re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)"),
}
FEWEST = 30
"""Of either label: below it an AUC is not measured."""


class Item(NamedTuple):
    """One feedback and what its row says of where it is from; null where it says nothing."""

    partition: str
    where: str
    feedback: Feedback
    user: str | None = None
    model: str | None = None
    time: str | None = None


class Predictor(NamedTuple):
    """How well something that is not quality tells the label."""

    name: str
    auc: float | None
    """Probability that a desirable answer has more of it than an undesirable one (ties count half); null: too few."""
    desirable: int
    undesirable: int


def auc(desirable: Sequence[float], undesirable: Sequence[float]) -> float:
    """Share of pairs of one of each in which the desirable one is larger; equal ones count half (Mann and Whitney)."""
    low = np.sort(np.asarray(undesirable, dtype=float))
    up = np.asarray(desirable, dtype=float)
    below = np.searchsorted(low, up, "left") + np.searchsorted(low, up, "right")
    return float(below.sum() / (2 * len(up) * len(low)))


def predictors(items: Sequence[Item]) -> list[Predictor]:
    """Length, phrases, date, and the name of the model. Of a model the share of its other answers that are desirable
    stands for its name, so that no answer predicts itself."""
    found = [
        _predictor("length of the answer (characters)", items, lambda item: float(len(item.feedback.completion))),
        _predictor("phrases of agreement", items, lambda item: float(len(AGREEMENT.findall(item.feedback.completion)))),
        _predictor("phrases of refusal", items, lambda item: float(len(REFUSAL.findall(item.feedback.completion)))),
    ]
    if any(item.time for item in items):
        times = sorted({item.time for item in items if item.time})
        rank = {time: float(number) for number, time in enumerate(times)}
        found.append(_predictor("date (later)", items, lambda item: rank[item.time] if item.time else None))
    if len({item.model for item in items if item.model}) > 1:
        liked, of_model = Counter[str](), Counter[str]()
        for item in items:
            if item.model:
                liked[item.model] += item.feedback.desirable
                of_model[item.model] += 1
        found.append(_predictor("name of the model", items, lambda item: _others(item, liked, of_model)))
    return found


def _others(item: Item, liked: Counter[str], of_model: Counter[str]) -> float | None:
    if item.model is None or of_model[item.model] < 2:
        return None
    return (liked[item.model] - item.feedback.desirable) / (of_model[item.model] - 1)


def _predictor(name: str, items: Sequence[Item], value: Callable[[Item], float | None]) -> Predictor:
    sides: dict[bool, list[float]] = {True: [], False: []}
    for item in items:
        of_item = value(item)
        if of_item is not None:
            sides[item.feedback.desirable].append(of_item)
    enough = min(map(len, sides.values())) >= FEWEST
    return Predictor(name, auc(sides[True], sides[False]) if enough else None, len(sides[True]), len(sides[False]))


class Repeats(NamedTuple):
    """Answers that occur more than once."""

    twice: int
    """Rows that repeat an earlier one with its label: same prompt, same answer."""
    nearly: int
    """Rows that do so but for case, punctuation and spaces."""
    both: list[tuple[str, str]]
    """(where, where) of one answer to one prompt that is desirable in one row and undesirable in another."""


def repeats(items: Sequence[Item]) -> Repeats:
    """Exact and near repetitions, and answers with both labels (compared without case, punctuation and spaces)."""
    exact: set[tuple[object, ...]] = set()
    labels: dict[tuple[str, str], dict[bool, str]] = defaultdict(dict)
    twice = nearly = 0
    both = []
    for item in items:
        fed = item.feedback
        key = (fed.prompt, fed.completion, fed.beside, fed.desirable)
        plain = (_plain(" ".join(turn[1] for turn in fed.prompt)), _plain(fed.completion) + fed.beside)
        seen = labels[plain]
        if key in exact:
            twice += 1
        elif fed.desirable in seen:
            nearly += 1
        if fed.desirable not in seen and seen:
            both.append((next(iter(seen.values())), item.where))
        exact.add(key)
        seen.setdefault(fed.desirable, item.where)
    return Repeats(twice, nearly, both)


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip() or text


def private(items: Sequence[Item]) -> dict[str, int]:
    """In how many rows each kind of private text stands, prompts included. Found by pattern: some more may be there."""
    found = dict.fromkeys(PRIVATE, 0)
    for item in items:
        texts = [*(turn[1] for turn in item.feedback.prompt), item.feedback.completion]
        for kind, pattern in PRIVATE.items():
            found[kind] += any(pattern.search(text) for text in texts)
    return found


def question(feedback: Feedback) -> str:
    """The last message of the user."""
    return next((turn[1] for turn in reversed(feedback.prompt) if turn[0] == "user"), "")


def overlap(items: Sequence[Item], hashes: frozenset[str]) -> int:
    """Rows whose last question is one of those with these hashes (spaces make no difference)."""
    return sum(instruction_hash(question(item.feedback)) in hashes for item in items)


def system_prompts(items: Sequence[Item]) -> Counter[str]:
    """Rows by system prompt; "" for none."""
    return Counter(next((t[1] for t in item.feedback.prompt if t[0] == "system"), "") for item in items)


def turns(feedback: Feedback) -> int:
    """Messages of the user in the prompt."""
    return sum(turn[0] == "user" for turn in feedback.prompt if turn[0] != TOOLS)
