"""Where a model comes from, over all rounds: `lineage.json`, kept beside its weights from training to the release.

A release is the base of the next one. So each trained model's folder says which model was the very first, and for each
round of training since then what it started from, which feedback it saw under which licence, and which questions were
asked in it, as hashes. Whoever trains on from it (from the release, from a run's iteration, from a copy) inherits all.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from kto_release.errors import ModelError, RunError
from kto_release.files import read_record
from kto_release.models import LocalModel
from kto_release.records import Facts, IterationRecord, ModelFacts

LINEAGE = "lineage.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""namespace/name; the name of a file is recorded without folders, so it holds no slash."""


class Root(Facts):
    """The model that everything began with."""

    name: str
    """Hub id, or the name of a local folder."""
    hub_id: str | None
    revision: str | None
    """Its commit; null: not known."""
    sha256: str
    """Digest of its weights."""
    traced: bool = False
    """Whether it is known by what a local copy's card says: the weights may differ from its."""
    license: str | None = None
    """As its card states it; null: not stated, or not looked up."""
    license_name: str | None = None
    license_link: str | None = None


class Source(Facts):
    """Feedback of one round."""

    name: str
    """Hub id, or file name."""
    revision: str | None
    license: str | None
    """Null: not known."""


class Round(Facts):
    """One run's training, up to the iteration whose folder this is."""

    run: str
    repo_id: str | None = None
    """Where it was released; null: it is not, or not yet."""
    iterations: int
    parent: str
    """What it started from: a Hub id, or the name of a local folder."""
    parent_revision: str | None
    """The parent's commit on the Hub; null: it did not come from there, or nobody knows."""
    parent_sha256: str
    """Digest of the parent's weights."""
    data: list[Source]
    prompts: int
    """Training prompts of all its partitions."""
    questions: list[str]
    """Hashes of what was asked last in each training prompt, sorted; see `question_digest`."""
    questions_known: bool = True
    """False for training from before there were such hashes."""


class Lineage(Facts):
    """`lineage.json`."""

    root: Root
    rounds: list[Round]
    """In order; the last is the one that made this model."""


def question_digest(text: str) -> str:
    """16 hex digits that stand for a question, whatever its case, white space and closing signs."""
    plain = " ".join(text.split()).lower().strip(" .?!")
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_lineage(folder: Path) -> Lineage | None:
    """What the model in a folder descends from; None where nothing says so. Raises `ModelError` for a damaged file."""
    try:
        return read_record(folder / LINEAGE, Lineage)
    except RunError as error:
        raise ModelError(f"{LINEAGE} of {folder.name!r} is damaged", todo="fetch the model again") from error


def inherited(base: LocalModel, initial: ModelFacts) -> Lineage:
    """The lineage that training from `base` begins with: its own, or the base itself as the root."""
    found = read_lineage(base.path)
    if found is not None:
        return found
    card = _card(base.path)
    stated = card.get("base_model")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    ancestor = stated if isinstance(stated, str) and HUB_ID.fullmatch(stated) else _recorded_base(base.path)
    hub_id = initial.hub_id or base.hub_id
    texts = {key: card.get(key) for key in ("license", "license_name", "license_link")}
    return Lineage(
        root=Root(
            name=hub_id or base.name,
            hub_id=hub_id or ancestor,
            revision=initial.revision,
            sha256=initial.sha256,
            # A Hub model that names itself as its base is a converted copy of it, such as the one that the demo makes.
            traced=ancestor is not None and hub_id in (None, ancestor),
            **{key: value if isinstance(value, str) else None for key, value in texts.items()},
        ),
        rounds=[],
    )


def parent_of(base: LocalModel, before: Lineage) -> tuple[str, str | None]:
    """The name and the commit of what a round starts from."""
    if base.hub_id is not None:
        return base.hub_id, base.revision
    released = before.rounds[-1].repo_id if before.rounds else None
    return (released, _downloaded_commit(base.path)) if released else (base.name, None)


def continued(before: Lineage, this: Round) -> Lineage:
    """The lineage of what this round made."""
    return before.model_copy(update={"rounds": [*before.rounds, this]})


def this_round(
    run: str,
    base: LocalModel,
    before: Lineage,
    records: Sequence[IterationRecord],
    asked: Sequence[frozenset[str] | None],
) -> Round:
    """What a run did up to the last of `records`; `asked` are the questions of each partition, where they are known."""
    name, revision = parent_of(base, before)
    data = {
        source: Source(
            name=source,
            revision=record.partition.revision if source in record.partition.licenses else None,
            license=record.partition.licenses.get(source),
        )
        for record in records
        for source in record.partition.source
    }
    return Round(
        run=run,
        iterations=len(records),
        parent=name,
        parent_revision=revision,
        parent_sha256=records[0].parent.sha256,
        data=list(data.values()),
        prompts=sum(record.partition.prompts for record in records),
        questions=sorted({digest for digests in asked for digest in digests or ()}),
        questions_known=all(digests is not None for digests in asked),
    )


def questions(rounds: Sequence[Round]) -> frozenset[str]:
    """Digests of all questions that were trained on."""
    return frozenset(digest for each in rounds for digest in each.questions)


def _recorded_base(folder: Path) -> str | None:
    """What the run began with whose iteration the folder is."""
    first = folder.resolve().parent.parent / "iteration-1" / "record.json"
    record = read_record(first, IterationRecord) if first.is_file() else None
    return record.parent.hub_id if record else None


def _card(folder: Path) -> dict[str, object]:
    from huggingface_hub import metadata_load  # slow to import
    from yaml import YAMLError

    try:
        return metadata_load(folder / "README.md") or {}
    except (OSError, ValueError, YAMLError):
        return {}


def _downloaded_commit(folder: Path) -> str | None:
    """The commit that huggingface_hub notes beside what it downloads into a folder."""
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    try:
        commit = note.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        return None
    return commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None
