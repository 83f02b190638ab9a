"""What a run's feedback is like, as its record keeps it and its card tells it: runs/NAME/feedback.json."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from kto_release.digests import sha256_of
from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.partitions import HELD_OUT, Partition, input_digests, read
from kto_release.feedback.report.likeness import languages, near_duplicates
from kto_release.feedback.report.measures import Item, predictors, private, repeats, system_prompts
from kto_release.files import read_record, write_record
from kto_release.recipe import DataSection
from kto_release.records import FEEDBACK, FeedbackReport, ToldByFact

LOOKED_AT = 5000
"""Rows of each partition that training looks at; `kto-release feedback` looks at all."""


def items_of(name: str, partition: Partition, data: DataSection, left_out: LeftOut, most: int | None) -> list[Item]:
    """The feedback of (the first `most` rows of) a partition, with what its rows say of where they are from."""
    items = []
    for row in islice(read(partition, data, left_out), most):
        origin = row.plain.get("origin")
        origin = origin if isinstance(origin, Mapping) else {}
        model, time = (origin.get(key) if isinstance(origin.get(key), str) else None for key in ("model", "time"))
        items += [Item(name, row.where, feedback, row.user, model, time) for feedback in row.feedback]
    return items


def describe(run: Path, partitions: Mapping[str, Partition], data: DataSection) -> None:
    """Look at the first rows of each partition and record it, unless the same feedback was looked at before."""
    key = key_of(partitions, data)
    known = read_record(run / FEEDBACK, FeedbackReport)
    if known is not None and known.key == key:
        return
    items = [item for name, part in partitions.items() for item in items_of(name, part, data, LeftOut(), LOOKED_AT)]
    write_record(run / FEEDBACK, described(items, key))


def key_of(partitions: Mapping[str, Partition], data: DataSection) -> str:
    """Digest of what the report is of."""
    return sha256_of(
        {
            "inputs": {name: input_digests(partition) for name, partition in partitions.items()},
            "data": data.model_dump(mode="json", exclude={"source"}),
        }
    )


def described(items: Sequence[Item], key: str) -> FeedbackReport:
    """The record of some feedback."""
    trained = [item for item in items if item.partition != HELD_OUT]
    users = Counter(item.user for item in trained if item.user)
    found = repeats(trained)
    return FeedbackReport(
        key=key,
        feedback=len(trained),
        users=len(users),
        largest_user=max(users.values()) / users.total() if users else None,
        models=dict(Counter(item.model for item in trained if item.model).most_common()),
        languages=languages(trained),
        system_prompts=len(set(system_prompts(trained)) - {""}),
        repeated=found.twice,
        near_duplicates=near_duplicates(trained),
        both_labels=len(found.both),
        private=private(trained),
        told_by=[ToldByFact(name=p.name, auc=p.auc) for p in predictors(trained)],
    )
