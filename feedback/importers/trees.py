"""Conversations kept as trees: only the ancestors of the rated message are what the model had seen."""

from collections.abc import Mapping
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Record
from kto_release.feedback.rows import RowProblem


def path_to(nodes: Mapping[str, Record], last: Any, parent: str) -> list[Record]:
    """The records from the root to `last`, by the key of their parent's id. Raises `LeftOut` where one is missing."""
    path: list[Record] = []
    seen: set[Any] = set()
    at = last
    while at not in {None, ""}:
        if at in seen:
            raise RowProblem(f"message {at!r} is its own ancestor", "a message is its own ancestor")
        if at not in nodes:
            raise LeftOut(reasons.LOST)
        seen.add(at)
        path.append(nodes[at])
        at = nodes[at].get(parent)
    return path[::-1]
