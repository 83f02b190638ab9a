"""What rows say of themselves that is not trained on: the name that a user knows them by, and the user's comment."""

from typing import NamedTuple

from kto_release.feedback.columns import Rules, comment_of
from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.partitions import Partition, prompt_digest, read
from kto_release.recipe import DataSection


class Said(NamedTuple):
    """One row, told apart by its source and number."""

    where: str
    """"file, row 3" or, where data.columns names an id, "file, id 'a7'"."""
    comment: str | None
    prompts: frozenset[bytes]
    """Digests of its prompts: whether this still is the row that was trained on."""


def said_in(partition: Partition, data: DataSection) -> dict[tuple[str, int], Said]:
    """The rows of a partition by source and number (from 1). Raises `DataError` where a source can't be read."""
    rules = Rules.of(data)
    return {
        (row.source, row.number): Said(
            row.where, comment_of(row.plain, rules), frozenset(prompt_digest(f.prompt) for f in row.feedback)
        )
        for row in read(partition, data, LeftOut())
    }
