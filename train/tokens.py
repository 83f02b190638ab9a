"""The tokens of a partition: rendered, checked, counted, and kept on disk as flat arrays that are mapped, not loaded.

tokens/ prompt_ids.bin completion_ids.bin   int32, end to end
        index.npz                           offsets, prompt and label of each feedback, digests of the prompts
        facts.json                          the partition's facts; written last
"""

import hashlib
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kto_release.errors import DataError, RunError
from kto_release.feedback.layouts import Feedback
from kto_release.feedback.partitions import Partition, Row, prompt_digest, read
from kto_release.files import read_record, write_record
from kto_release.positions import position
from kto_release.recipe import DataSection, TrainSection
from kto_release.records import LabelCounts, PartitionFacts
from kto_release.templates import Rendered, render_feedback
from kto_release.train.tree import Branch, Tree

ROWS_AT_ONCE = 1000
PERCENTILES = (5, 25, 50, 75, 95)
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
        self.prompt_digests: NDArray[np.void] = index["prompt_digests"]
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

    def digest(self, feedback: int) -> str:
        """Digest of one feedback's ids, in hexadecimal."""
        both = (self.prompt(int(self.prompt_F[feedback])).tobytes(), self.completion(feedback).tobytes())
        return hashlib.sha256(b"|".join(both)).hexdigest()[:16]


class _Writer:
    """Collects feedback into the flat arrays."""

    def __init__(self, folder: Path, partition: Partition, train: TrainSection) -> None:
        self.folder, self.partition, self.train = folder, partition, train
        self.prompts: dict[bytes, int] = {}
        self.digests: list[bytes] = []
        self.prompt_offsets, self.completion_offsets = [0], [0]
        self.prompt_F: list[int] = []
        self.desirable_F: list[bool] = []
        self.row_F: list[int] = []
        self.dropped: dict[str, list[int]] = {}
        self.truncated = [0, 0]
        self.seen: set[bytes] = set()
        self.duplicates = 0
        self.in_alpaca_eval = 0
        self.sha256 = hashlib.sha256()
        self.prompt_file = (folder / "prompt_ids.bin").open("wb")
        self.completion_file = (folder / "completion_ids.bin").open("wb")

    def add(self, where: str, row: int, feedback: Feedback, ids: Rendered) -> None:
        desirable = feedback.desirable
        limit = self.train.max_length
        prompt, completion = ids.prompt_ids, ids.completion_ids
        if completion is None:
            return self._drop(ids.problem or "not rendered", desirable)
        if len(prompt) >= limit:
            return self._refuse_or_drop("prompt too long", where, len(prompt), desirable)
        if len(prompt) + len(completion) > limit:
            if self.train.truncate != "cut":
                return self._refuse_or_drop("too long", where, len(prompt) + len(completion), desirable)
            # The end is cut off, and with it the end-of-turn token: a cut answer does not end.
            completion = completion[: limit - len(prompt)]
            self.truncated[desirable] += 1
        self._keep(row, feedback, np.array(prompt, np.int32), np.array(completion, np.int32))
        return None

    def _refuse_or_drop(self, reason: str, where: str, length: int, desirable: bool) -> None:
        if self.train.truncate == "error":
            raise DataError(
                f"{where}: {length} tokens, more than max_length ({self.train.max_length})",
                todo="raise train.max_length, or set train.truncate to drop or cut",
            )
        self._drop(reason, desirable)

    def _drop(self, reason: str, desirable: bool) -> None:
        self.dropped.setdefault(reason, [0, 0])[desirable] += 1

    def _keep(self, row: int, feedback: Feedback, prompt: NDArray[np.int32], completion: NDArray[np.int32]) -> None:
        content = hashlib.sha256(prompt.tobytes()).digest()[:16]
        number = self.prompts.get(content)
        if number is None:
            number = self.prompts[content] = len(self.digests)
            self.digests.append(prompt_digest(feedback.prompt))
            self.in_alpaca_eval += position(feedback.prompt[-1][1]) is not None
            self.prompt_offsets.append(self.prompt_offsets[-1] + len(prompt))
            prompt.tofile(self.prompt_file)
        completion.tofile(self.completion_file)
        self.completion_offsets.append(self.completion_offsets[-1] + len(completion))
        self.prompt_F.append(number)
        self.desirable_F.append(feedback.desirable)
        self.row_F.append(row)
        label = bytes([feedback.desirable])
        content = hashlib.sha256(prompt.tobytes() + b"|" + completion.tobytes() + label).digest()
        self.sha256.update(content)
        self.duplicates += content[:16] in self.seen
        self.seen.add(content[:16])

    def finish(self, key: str) -> None:
        self.prompt_file.close()
        self.completion_file.close()
        desirable_F = np.array(self.desirable_F, dtype=np.bool_)
        lengths_F = np.diff(self.prompt_offsets)[self.prompt_F] + np.diff(self.completion_offsets)
        np.savez(
            self.folder / "index.npz",
            prompt_F=np.array(self.prompt_F, np.int64),
            desirable_F=desirable_F,
            row_F=np.array(self.row_F, np.int64),
            prompt_offsets=np.array(self.prompt_offsets, np.int64),
            completion_offsets=np.array(self.completion_offsets, np.int64),
            prompt_digests=np.array(self.digests, dtype="V16"),
        )
        facts = PartitionFacts(
            name=self.partition.name,
            source=sorted({s.hub_id or s.name for s in self.partition.sources}),
            revision=next((s.revision for s in self.partition.sources if s.hub_id), None),
            licenses=self.partition.licenses,
            sha256=self.sha256.hexdigest(),
            kept=LabelCounts(desirable=int(desirable_F.sum()), undesirable=int((~desirable_F).sum())),
            dropped={name: _counts(counts) for name, counts in sorted(self.dropped.items())},
            truncated=_counts(self.truncated),
            prompts=len(self.digests),
            tokens=self.prompt_offsets[-1] + self.completion_offsets[-1],
            longest=int(lengths_F.max()),
            lengths={str(p): int(np.percentile(lengths_F, p, method="higher")) for p in PERCENTILES},
            duplicates=self.duplicates,
            overlaps={ALPACA_EVAL: self.in_alpaca_eval},
        )
        write_record(self.folder / "facts.json", Kept(key=key, facts=facts))


def _counts(counts: Sequence[int]) -> LabelCounts:
    return LabelCounts(undesirable=counts[0], desirable=counts[1])


def tokenize(
    folder: Path, partition: Partition, data: DataSection, train: TrainSection, tokenizer: Any, key: str
) -> Tokens:
    """The tokens of a partition, from `folder` where they are there already for the same `key`.

    `key` stands for everything that determines them. Raises `DataError` where a row can't be used or none is left.
    """
    kept = read_record(folder / "facts.json", Kept)
    if kept is not None and kept.key == key:
        return Tokens(folder)
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    writer = _Writer(scratch, partition, train)
    rows = 0
    stream = read(partition, data)
    while chunk := list(islice(stream, ROWS_AT_ONCE)):
        rows += _write(writer, chunk, tokenizer, rows)
    if not writer.prompt_F:
        why = ", ".join(f"{sum(n)} {reason}" for reason, n in writer.dropped.items())
        shutil.rmtree(scratch)
        raise DataError(
            f"the partition {partition.name!r} is empty: "
            + (f"all feedback was dropped ({why})" if why else "no rows"),
            expected="feedback on at least two prompts",
            todo="raise train.max_length" if why else "mend data.source or data.partitions",
        )
    writer.finish(key)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return Tokens(folder)


def _write(writer: _Writer, rows: Sequence[Row], tokenizer: Any, first: int) -> int:
    flat = [(row.where, first + place, feedback) for place, row in enumerate(rows) for feedback in row.feedback]
    rendered = render_feedback(tokenizer, [(feedback.messages, feedback.completion) for _, _, feedback in flat])
    for (where, number, feedback), ids in zip(flat, rendered, strict=True):
        writer.add(where, number, feedback, ids)
    return len(rows)


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
