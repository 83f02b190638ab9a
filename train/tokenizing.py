"""Feedback to tokens: rendered, checked against the length, counted, and written as tokens.py maps them."""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from kto_release.errors import DataError
from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.partitions import Partition, Row, prompt_digest, read
from kto_release.feedback.rows import Feedback, RowProblem
from kto_release.files import read_record, write_record
from kto_release.lineage import question_digest
from kto_release.positions import position
from kto_release.recipe import DataSection, TrainSection
from kto_release.records import LabelCounts, PartitionFacts
from kto_release.templates import Conversation, Rendered, render_feedback
from kto_release.templates.cutting import THOUGHTLESS
from kto_release.templates.prints import UNPRINTED
from kto_release.train.tokens import ALPACA_EVAL, Kept, Tokens

ROWS_AT_ONCE = 1000
PART = "tokens.part-"
"""Beginning of the names of folders with tokens that are not finished."""
PERCENTILES = (5, 25, 50, 75, 95)
OTHER_TEMPLATE = "take a template that does: model.template"
STRIP = "data.reasoning: strip leaves thoughts out; or take a template that prints them: model.template"
UNUSABLE = {
    UNPRINTED["tools"]: f"{OTHER_TEMPLATE}; or data.ignore: [tools]",
    UNPRINTED["calls"]: OTHER_TEMPLATE,
    UNPRINTED["results"]: OTHER_TEMPLATE,
    UNPRINTED["reasoning"]: STRIP,
    THOUGHTLESS: STRIP,
}
"""What makes a row one that can't be used, since a part of it would be lost; with what to do."""


class _Writer:
    """Collects feedback into the flat arrays."""

    def __init__(self, folder: Path, partition: Partition, train: TrainSection) -> None:
        self.folder, self.partition, self.train = folder, partition, train
        self.prompts: dict[bytes, int] = {}
        self.digests: list[bytes] = []
        self.questions: list[str] = []
        self.prompt_offsets, self.completion_offsets = [0], [0]
        self.prompt_F: list[int] = []
        self.desirable_F: list[bool] = []
        self.row_F: list[int] = []
        """The row's number in its own source, from 0."""
        self.sources: dict[str, int] = {}
        self.source_F: list[int] = []
        self.users: dict[str, int] = {}
        self.user_F: list[int] = []
        self.left_out = LeftOut()
        self.dropped: dict[str, list[int]] = {}
        self.truncated = [0, 0]
        self.seen: set[bytes] = set()
        self.contradicting = 0
        self.duplicates = 0
        self.in_alpaca_eval = 0
        self.sha256 = hashlib.sha256()
        self.prompt_file = (folder / "prompt_ids.bin").open("wb")
        self.completion_file = (folder / "completion_ids.bin").open("wb")

    def add(self, row: Row, feedback: Feedback, ids: Rendered) -> None:
        desirable = feedback.desirable
        limit = self.train.max_length
        prompt, completion = ids.prompt_ids, ids.completion_ids
        if ids.problem in UNUSABLE:
            return self.left_out.add(row.where, RowProblem(ids.problem, todo=UNUSABLE[ids.problem]))
        if completion is None:
            return self._drop(row.where, ids.problem or "not rendered", desirable, ids.detail)
        if len(prompt) >= limit:
            return self._refuse_or_drop("prompt too long", row.where, len(prompt), desirable)
        if len(prompt) + len(completion) > limit:
            if self.train.truncate != "cut":
                return self._refuse_or_drop("too long", row.where, len(prompt) + len(completion), desirable)
            # The end is cut off, and with it the end-of-turn token: a cut answer does not end.
            completion = completion[: limit - len(prompt)]
            self.truncated[desirable] += 1
        if ids.note:
            self.left_out.notes[ids.note] += 1
        self._keep(row, feedback, np.array(prompt, np.int32), np.array(completion, np.int32))
        return None

    def _refuse_or_drop(self, reason: str, where: str, length: int, desirable: bool) -> None:
        if self.train.truncate == "error":
            raise DataError(
                f"{where}: {length} tokens, more than max_length ({self.train.max_length})",
                todo="raise train.max_length, or set train.truncate to drop or cut",
            )
        self._drop(where, reason, desirable, f"{length} tokens")

    def _drop(self, where: str, reason: str, desirable: bool, detail: str | None = None) -> None:
        self.dropped.setdefault(reason, [0, 0])[desirable] += 1
        self.left_out.add_dropped(where, reason, detail)

    def _keep(self, row: Row, feedback: Feedback, prompt: NDArray[np.int32], completion: NDArray[np.int32]) -> None:
        content = hashlib.sha256(prompt.tobytes()).digest()[:16]
        number = self.prompts.get(content)
        if number is None:
            number = self.prompts[content] = len(self.digests)
            self.digests.append(prompt_digest(feedback.prompt))
            self.questions.append(question_digest(feedback.prompt[-1][1]))
            self.in_alpaca_eval += position(feedback.prompt[-1][1]) is not None
            self.prompt_offsets.append(self.prompt_offsets[-1] + len(prompt))
            prompt.tofile(self.prompt_file)
        completion.tofile(self.completion_file)
        self.completion_offsets.append(self.completion_offsets[-1] + len(completion))
        self.prompt_F.append(number)
        self.desirable_F.append(feedback.desirable)
        self.row_F.append(row.number - 1)
        self.user_F.append(-1 if row.user is None else self.users.setdefault(row.user, len(self.users)))
        self.source_F.append(self.sources.setdefault(row.source, len(self.sources)))
        label = bytes([feedback.desirable])
        content = hashlib.sha256(prompt.tobytes() + b"|" + completion.tobytes() + label).digest()
        self.sha256.update(content)
        self.duplicates += content[:16] in self.seen
        opposite = bytes([not feedback.desirable])
        self.contradicting += (
            hashlib.sha256(prompt.tobytes() + b"|" + completion.tobytes() + opposite).digest()[:16] in self.seen
        )
        self.seen.add(content[:16])

    def close(self) -> None:
        """What was added is on disk; nothing can be added any more."""
        self.prompt_file.close()
        self.completion_file.close()

    def finish(self, key: str) -> None:
        desirable_F = np.array(self.desirable_F, dtype=np.bool_)
        lengths_F = np.diff(self.prompt_offsets)[self.prompt_F] + np.diff(self.completion_offsets)
        np.savez(
            self.folder / "index.npz",
            prompt_F=np.array(self.prompt_F, np.int64),
            desirable_F=desirable_F,
            row_F=np.array(self.row_F, np.int64),
            user_F=np.array(self.user_F, np.int64),
            source_F=np.array(self.source_F, np.int64),
            sources=np.array(list(self.sources)),
            prompt_offsets=np.array(self.prompt_offsets, np.int64),
            completion_offsets=np.array(self.completion_offsets, np.int64),
            prompt_digests=np.array(self.digests, dtype="V16"),
            question_digests=np.array(self.questions, dtype="U16"),
        )
        facts = PartitionFacts(
            name=self.partition.name,
            source=sorted({s.hub_id or s.name for s in self.partition.sources}),
            revision=next((s.revision for s in self.partition.sources if s.hub_id), None),
            licenses=self.partition.licenses,
            sha256=self.sha256.hexdigest(),
            kept=LabelCounts(desirable=int(desirable_F.sum()), undesirable=int((~desirable_F).sum())),
            dropped={name: _counts(counts) for name, counts in sorted(self.dropped.items())},
            skipped=self.left_out.reasons(),
            unused=dict(sorted(self.left_out.unused.items())),
            notes=self._notes(),
            truncated=_counts(self.truncated),
            prompts=len(self.digests),
            tokens=self.prompt_offsets[-1] + self.completion_offsets[-1],
            longest=int(lengths_F.max()),
            lengths={str(p): int(np.percentile(lengths_F, p, method="higher")) for p in PERCENTILES},
            duplicates=self.duplicates,
            overlaps={ALPACA_EVAL: self.in_alpaca_eval},
        )
        write_record(self.folder / "facts.json", Kept(key=key, facts=facts))

    def _notes(self) -> dict[str, int]:
        notes = dict(self.left_out.notes)
        if self.contradicting:
            notes["an answer is desirable in one row and undesirable in another"] = self.contradicting
        return notes


def _counts(counts: Sequence[int]) -> LabelCounts:
    return LabelCounts(undesirable=counts[0], desirable=counts[1])


def clear_unfinished(run: Path) -> None:
    """Remove what killed processes left; for the one process that holds the run."""
    for scratch in run.glob(f"*/{PART}*"):
        shutil.rmtree(scratch, ignore_errors=True)


def tokenize(
    folder: Path, partition: Partition, data: DataSection, train: TrainSection, tokenizer: Any, key: str
) -> Tokens:
    """The tokens of a partition, from `folder` where they are there already for the same `key`.

    `key` stands for everything that determines them. Raises `DataError` where a row can't be used or none is left.
    """
    if _has(folder, key):
        return Tokens(folder)
    # Of its own: processes that do not see each other's files at once, as on a network disk, may both be at it.
    scratch = folder.with_name(f"{PART}{uuid4().hex[:12]}")
    scratch.mkdir(parents=True)
    writer = _Writer(scratch, partition, train)
    try:
        with closing(writer):
            stream = read(partition, data, writer.left_out)
            while chunk := list(islice(stream, ROWS_AT_ONCE)):
                _write(writer, chunk, tokenizer)
        if data.bad_rows == "error":
            writer.left_out.refuse(partition.name)
        if not writer.prompt_F:
            raise _empty(partition.name, writer)
    except DataError:
        shutil.rmtree(scratch)
        raise
    writer.left_out.write(scratch)
    writer.finish(key)
    _place(scratch, folder, key)
    return Tokens(folder)


def _has(folder: Path, key: str) -> bool:
    kept = read_record(folder / "facts.json", Kept)
    return kept is not None and kept.key == key


def _place(scratch: Path, folder: Path, key: str) -> None:
    """Move what was made to its place; another process's that is there first, which is the same, stays."""
    if not _has(folder, key):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            scratch.rename(folder)
        except OSError:
            if not _has(folder, key):
                raise
    shutil.rmtree(scratch, ignore_errors=True)


def tokenize_each(steps: Mapping[str, Callable[[], Tokens]]) -> dict[str, Tokens]:
    """The tokens of every partition, by name. Raises one `DataError` with what is wrong in any of them."""
    tokens: dict[str, Tokens] = {}
    errors = []
    for name, step in steps.items():
        try:
            tokens[name] = step()
        except DataError as error:
            errors.append(error)
    if errors:
        raise DataError.together(errors)
    return tokens


def _empty(name: str, writer: _Writer) -> DataError:
    skipped = writer.left_out.reasons()
    why = [f"{sum(n)} {reason}" for reason, n in writer.dropped.items()]
    why += [f"{n} rows left out: {reason}" for reason, n in skipped.items()]
    too_long = any("too long" in reason for reason in writer.dropped)
    return DataError(
        f"the partition {name!r} is empty: " + (f"all feedback was dropped ({', '.join(why)})" if why else "no rows"),
        expected="feedback on at least two prompts",
        todo="raise train.max_length"
        if too_long
        else "\n         ".join(writer.left_out.todos) or writer.left_out.first_detail()
        if why
        else "mend data.source or data.partitions",
    )


def _write(writer: _Writer, rows: Sequence[Row], tokenizer: Any) -> None:
    flat = [(row, feedback) for row in rows for feedback in row.feedback]
    rendered = render_feedback(tokenizer, [Conversation(f.messages, f.answer, f.tools) for _, f in flat])
    for (row, feedback), ids in zip(flat, rendered, strict=True):
        writer.add(row, feedback, ids)
