"""The quickstart's own feedback and instructions: complete, readable, and not given away by length.

pytest tests/recipes/test_quickstart_data.py
"""

import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kto_release.feedback.partitions import find_partitions, read
from kto_release.recipe import DataSection

FOLDER = Path(str(files("kto_release.recipes"))) / "quickstart"
PARTITIONS = ["iteration-1", "iteration-2", "iteration-3"]
FEEDBACK = [*PARTITIONS, "held-out"]
MESSAGE = {"role", "content"}
MOST_WORDS = 120
NEARLY_EQUAL = 0.7
"""Two prompts are too close when this share of all their words is common to both (Jaccard)."""


class Answers(NamedTuple):
    """What stands below one prompt."""

    liked: list[str]
    disliked: list[str]


def answers(name: str) -> dict[tuple[tuple[str, str], ...], Answers]:
    """The answers of a feedback file by prompt, as training reads them."""
    data = DataSection(source=str(FOLDER), partitions=PARTITIONS, held_out="held-out")
    partitions = find_partitions(data)
    assert partitions.held_out is not None
    partition = dict(zip(FEEDBACK, [*partitions.iterations, partitions.held_out], strict=True))[name]
    found: dict[tuple[tuple[str, str], ...], Answers] = {}
    for row in read(partition, data):
        for feedback in row.feedback:
            both = found.setdefault(feedback.prompt, Answers([], []))
            (both.liked if feedback.desirable else both.disliked).append(feedback.completion)
    return found


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def instructions() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((FOLDER / "instructions.json").read_text(encoding="utf-8"))
    return found


def every_prompt() -> Iterator[str]:
    """Each prompt of each file once, its turns joined, in lower case and with single spaces."""
    for name in FEEDBACK:
        for prompt in answers(name):
            yield normal(" ".join(content for _, content in prompt))
    for item in instructions():
        yield normal(item["instruction"])


def every_answer() -> Iterator[str]:
    for name in FEEDBACK:
        for both in answers(name).values():
            yield from both.liked
            yield from both.disliked
    for item in instructions():
        yield item["output"]


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() else " " for c in text.lower()).split())


def not_longer(name: str) -> tuple[int, int]:
    """(pairs whose disliked answer has no more words than the liked one, all pairs)."""
    pairs = [(a, b) for both in answers(name).values() for a in both.liked for b in both.disliked]
    return sum(len(b.split()) <= len(a.split()) for a, b in pairs), len(pairs)


@pytest.mark.parametrize(
    ("name", "prompts", "liked", "disliked"),
    [("iteration-1", 28, 28, 28), ("iteration-2", 28, 28, 28), ("iteration-3", 28, 31, 40), ("held-out", 32, 32, 32)],
)
def test_reader_finds_every_prompt_with_liked_and_disliked_answers(
    name: str, prompts: int, liked: int, disliked: int
) -> None:
    """The feedback reader finds the stated number of prompts, each with at least one liked and one disliked answer."""
    found = answers(name)

    assert (len(found), sum(len(b.liked) for b in found.values()), sum(len(b.disliked) for b in found.values())) == (
        prompts,
        liked,
        disliked,
    )
    assert [prompt for prompt, both in found.items() if not both.liked or not both.disliked] == []


@pytest.mark.parametrize("name", ["iteration-1", "held-out"])
def test_pairs_are_strings(name: str) -> None:
    """Iteration 1 and the held-out part are pairs of strings, and nothing else stands in a row."""
    kinds = {tuple((key, type(value)) for key, value in row.items()) for row in lines(name)}

    assert kinds == {(("prompt", str), ("chosen", str), ("rejected", str))}


def test_iteration_2_is_in_the_snorkel_layout() -> None:
    """Iteration 2 has prompt strings, and message lists that repeat the prompt and end with the answer."""
    rows = lines("iteration-2")

    assert {tuple(row) for row in rows} == {("prompt", "chosen", "rejected")}
    for row in rows:
        for side in (row["chosen"], row["rejected"]):
            assert [set(message) for message in side] == [MESSAGE, MESSAGE]
            assert [message["role"] for message in side] == ["user", "assistant"]
            assert side[0]["content"] == row["prompt"]


def test_iteration_3_is_labelled_rows_with_some_conversations() -> None:
    """Iteration 3 has message-list prompts and boolean labels; five have two turns, fifteen have three answers."""
    rows = lines("iteration-3")
    found = answers("iteration-3")

    assert {tuple((key, type(value)) for key, value in row.items()) for row in rows} == {
        (("prompt", list), ("completion", str), ("label", bool))
    }
    assert Counter(tuple(role for role, _ in prompt) for prompt in found) == {
        ("user",): 23,
        ("user", "assistant", "user"): 5,
    }
    assert Counter(len(both.liked) + len(both.disliked) for both in found.values()) == {2: 13, 3: 15}


def test_instructions_are_in_alpacaevals_format() -> None:
    """There are 24 instructions, four in each of six categories, with exactly AlpacaEval's four fields."""
    found = instructions()

    assert {tuple(item) for item in found} == {("dataset", "instruction", "output", "generator")}
    assert Counter(item["dataset"] for item in found) == dict.fromkeys(
        ("facts", "arithmetic", "how-to", "writing", "explaining", "coding"), 4
    )
    assert {item["generator"] for item in found} == {"kto-release authors"}


def test_no_prompt_occurs_twice() -> None:
    """No prompt is shared between files or with the instructions, whatever its case and spaces."""
    counts = Counter(every_prompt())

    assert [prompt for prompt, count in counts.items() if count > 1] == []
    assert len(counts) == 28 + 28 + 28 + 32 + 24


def test_no_two_prompts_are_nearly_equal() -> None:
    """No two prompts, instructions included, have most of their words in common."""
    prompts = [(prompt, words(prompt)) for prompt in every_prompt()]
    close = [(a, b) for (a, u), (b, v) in combinations(prompts, 2) if len(u & v) >= NEARLY_EQUAL * len(u | v)]

    assert close == []


def test_every_answer_is_another_text() -> None:
    """No answer stands twice, so no prompt has one answer both liked and disliked."""
    counts = Counter(normal(answer) for answer in every_answer())

    assert [answer for answer, count in counts.items() if count > 1] == []


def test_texts_are_trimmed_and_short() -> None:
    """No text is empty, has spaces around it or is longer than 120 words."""
    texts = [*every_prompt(), *every_answer()]

    assert [text for text in texts if not text or text != text.strip() or len(text.split()) > MOST_WORDS] == []


def test_characters_are_plain() -> None:
    """The files are UTF-8 of printable ASCII and the letters that Spanish and Italian need: no typographic quotes."""
    used = set("".join([*every_prompt(), *every_answer()]))

    assert {c for c in used if not c.isascii()} == set("¿áèó")
    assert [c for c in used if c.isascii() and not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("name", FEEDBACK)
def test_length_alone_does_not_decide(name: str) -> None:
    """In each file, the disliked answer is not longer than the liked one in a share of 0.2 to 0.6 of the pairs."""
    count, pairs = not_longer(name)

    assert 0.2 <= count / pairs <= 0.6


def test_readme_states_the_true_counts() -> None:
    """The counts in the README, and its share of pairs whose disliked answer is not longer, are those of the files."""
    readme = normal((FOLDER / "README.md").read_text(encoding="utf-8"))
    stated = {
        cells[0].strip("`"): tuple(int(cell) for cell in cells[1:4])
        for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    counted = {
        f"{name}.jsonl": (
            len(found),
            sum(len(b.liked) for b in found.values()),
            sum(len(b.disliked) for b in found.values()),
        )
        for name in FEEDBACK
        if (found := answers(name))
    }
    shares = [not_longer(name) for name in FEEDBACK]
    short, pairs = sum(a for a, _ in shares), sum(b for _, b in shares)

    assert stated == {**counted, "instructions.json": (len(instructions()), len(instructions()), 0)}
    assert f"in {short / pairs:.0%} of the pairs ({short} of {pairs})" in readme
