"""The tokens of a partition, kept on disk as flat arrays that are mapped, not loaded; tokenizing.py writes them.

tokens/ prompt_ids.bin completion_ids.bin   int32, end to end
        index.npz                           offsets, prompt, label and source of each feedback, digests of the prompts
        left_out.jsonl                      what of the feedback is not in it, and why
        facts.json                          the partition's facts; written last
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kto_release.errors import RunError
from kto_release.files import read_record
from kto_release.records import PartitionFacts
from kto_release.train.tree import Branch, Tree

ALPACA_EVAL = "alpaca_eval"


class Kept(BaseModel):
    """`facts.json`: the facts, and what they were computed from."""

    key: str
    facts: PartitionFacts


class Tokens:
    """Feedback of one partition as token ids. F feedback, P prompts."""

    def __init__(self, folder: Path) -> None:
        kept = read_record(folder / "facts.json", Kept)
        if kept is None:
            raise RunError(f"no tokens in {str(folder)!r}")
        self.key, self.facts = kept.key, kept.facts
        index = np.load(folder / "index.npz")
        self.prompt_F: NDArray[np.int64] = index["prompt_F"]
        self.desirable_F: NDArray[np.bool_] = index["desirable_F"]
        self.row_F: NDArray[np.int64] = index["row_F"]
        self.user_F: NDArray[np.int64] = index["user_F"] if "user_F" in index else np.full(len(self.prompt_F), -1)
        """The user who said so, numbered within the partition; -1: not known (and in tokens of before 0.2)."""
        self._source_F: NDArray[np.int64] = index["source_F"]
        self._sources: list[str] = index["sources"].tolist()
        self.prompt_digests: NDArray[np.void] = index["prompt_digests"]
        self.questions = frozenset(index["question_digests"].tolist()) if "question_digests" in index else None
        """Digests of what the prompts ask last; null for tokens from before there were such."""
        self._prompt_offsets: NDArray[np.int64] = index["prompt_offsets"]
        self._completion_offsets: NDArray[np.int64] = index["completion_offsets"]
        self._prompt_ids = np.memmap(folder / "prompt_ids.bin", dtype=np.int32, mode="r")
        self._completion_ids = np.memmap(folder / "completion_ids.bin", dtype=np.int32, mode="r")

    def __len__(self) -> int:
        return len(self.prompt_F)

    def prompt(self, prompt: int) -> NDArray[np.int32]:
        """Ids of a prompt, by its number."""
        return np.asarray(self._prompt_ids[self._prompt_offsets[prompt] : self._prompt_offsets[prompt + 1]])

    def completion(self, feedback: int) -> NDArray[np.int32]:
        """Ids of the completion of a feedback, its end-of-turn token included (unless it was cut)."""
        start, end = self._completion_offsets[feedback], self._completion_offsets[feedback + 1]
        return np.asarray(self._completion_ids[start:end])

    def partner(self, prompt: int, feedback: int, max_length: int) -> NDArray[np.int32]:
        """The completion of `feedback` as it stands behind `prompt`: cut where both are longer than `max_length`."""
        room = max_length - int(self._prompt_offsets[prompt + 1] - self._prompt_offsets[prompt])
        return self.completion(feedback)[: max(1, room)]

    def largest_id(self) -> int:
        """The largest token id of any prompt or completion."""
        return int(max(self._prompt_ids.max(), self._completion_ids.max()))

    def longest(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The longest prompt, and the longest completion: no conversation of a step is longer than both."""
        lengths = np.diff(self._prompt_offsets), np.diff(self._completion_offsets)
        return self.prompt(int(lengths[0].argmax())), self.completion(int(lengths[1].argmax()))

    def place(self, feedback: int) -> tuple[str, int]:
        """Source and row number, from 1, of a feedback."""
        return self._sources[self._source_F[feedback]], int(self.row_F[feedback]) + 1

    def where(self, feedback: int) -> str:
        """Where a feedback comes from: "a.jsonl, row 3"."""
        source, row = self.place(feedback)
        return f"{source}, row {row}"

    def places(self, feedback: Sequence[int]) -> str:
        """Where some feedback comes from, file by file: "a.jsonl, rows 3, 7"."""
        rows: dict[int, set[int]] = {}
        for number in feedback:
            rows.setdefault(int(self._source_F[number]), set()).add(int(self.row_F[number]) + 1)
        return "; ".join(f"{self._sources[s]}, rows {', '.join(map(str, sorted(rows[s])))}" for s in sorted(rows))

    def digest(self, feedback: int) -> str:
        """Digest of one feedback's ids, in hexadecimal."""
        both = (self.prompt(int(self.prompt_F[feedback])).tobytes(), self.completion(feedback).tobytes())
        return hashlib.sha256(b"|".join(both)).hexdigest()[:16]


def with_overlaps(tokens: dict[str, Tokens]) -> dict[str, PartitionFacts]:
    """The facts of each partition with the prompts that it shares with the others, by name."""
    return {
        name: own.facts.model_copy(
            update={
                "overlaps": own.facts.overlaps
                | {
                    other_name: len(np.intersect1d(own.prompt_digests, other.prompt_digests))
                    for other_name, other in tokens.items()
                    if other_name != name
                }
            }
        )
        for name, own in tokens.items()
    }


def trees(
    tokens: Tokens,
    prompts: NDArray[np.int64],
    completions: NDArray[np.int64],
    slots: NDArray[np.int64],
    max_length: int,
) -> list[Tree]:
    """The prompt trees of these pairs: one per prompt, in order of its first pair."""
    grown: dict[int, Tree] = {}
    for prompt, completion, slot in zip(prompts.tolist(), completions.tolist(), slots.tolist(), strict=True):
        tree = grown.setdefault(prompt, Tree(tokens.prompt(prompt), []))
        own = tokens.prompt_F[completion] == prompt
        ids = tokens.completion(completion) if own else tokens.partner(prompt, completion, max_length)
        tree.branches.append(Branch(ids, slot))
    return list(grown.values())
