"""What of the feedback is not trained on, and why: nothing is left out without being counted here."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from kto_release.errors import DataError
from kto_release.feedback.rows import RowProblem

SHOWN = 10
LISTING = "left_out.jsonl"
USUAL = "mend or remove these rows; docs/data.md shows the layouts"


class Bad(NamedTuple):
    """One row that is not used."""

    where: str
    reason: str
    problem: str
    fault: bool


class LeftOut:
    """Collects, over one partition, the rows that are not used and the columns that nothing reads."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows that were read."""
        self.bad: list[Bad] = []
        self.unused: Counter[str] = Counter()
        """Columns and message keys that hold no part of a conversation: in how many rows."""
        self.notes: Counter[str] = Counter()
        """What else to know, with its count."""
        self.todos: dict[str, None] = {}
        self._dropped: list[Bad] = []

    def add(self, where: str, problem: RowProblem) -> None:
        """A row that can't be used, or that the recipe leaves out."""
        self.bad.append(Bad(where, problem.kind, str(problem), problem.fault))
        if problem.todo:
            self.todos[problem.todo] = None

    def add_dropped(self, where: str, reason: str, detail: str | None) -> None:
        """An answer that is right, and left out for its length or its tokens: listed here, counted by its label."""
        self._dropped.append(Bad(where, reason, f"{reason}: {detail}" if detail else reason, fault=False))

    def first_detail(self) -> str | None:
        """Where the first answer was left out, and why."""
        return f"look at {self._dropped[0].where}: {self._dropped[0].problem}" if self._dropped else None

    def reasons(self) -> dict[str, int]:
        """How many rows are not used, by reason, the most frequent first."""
        return dict(Counter(bad.reason for bad in self.bad).most_common())

    def refuse(self, partition: str) -> None:
        """Raise `DataError` with the rows that are wrong, if there are any."""
        faults = [bad for bad in self.bad if bad.fault]
        if not faults:
            return
        shown = [f"  - {bad.where}: {bad.problem}" for bad in faults[:SHOWN]]
        if len(faults) > SHOWN:
            reasons = Counter(bad.reason for bad in faults).most_common(SHOWN)
            shown.append(
                f"  … and {len(faults) - SHOWN} more; in all " + ", ".join(f"{n} x {why}" for why, n in reasons)
            )
        raise DataError(
            f"{len(faults)} of {self.rows} rows of partition {partition!r} can't be used:\n" + "\n".join(shown),
            todo="\n         ".join([USUAL, *self.todos]),
        )

    def write(self, folder: Path) -> None:
        """One line of JSON for each row or answer that is not used, in left_out.jsonl; no file where there is none."""
        if self.bad or self._dropped:
            with (folder / LISTING).open("w", encoding="utf-8") as file:
                for bad in (*self.bad, *self._dropped):
                    line = {"where": bad.where, "reason": bad.reason, "problem": bad.problem}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
