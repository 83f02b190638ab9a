"""Feedback from data sets of the Hugging Face Hub: which commit and licence, and their rows through `datasets`."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kto_release.errors import DataError, HubError
from kto_release.recipe import DataSection


class Split(NamedTuple):
    """One split of a Hub data set."""

    hub_id: str
    name: str
    revision: str | None
    config: str | None = None
    data_dir: str | None = None


def hub_facts(data: DataSection) -> tuple[str | None, dict[str, str | None]]:
    """The commit and the licence of the Hub data sets; unknown (None) where only the cache is at hand."""
    from huggingface_hub import HfApi

    from kto_release.hub import READ_FAILURES, explain_read  # brings huggingface_hub

    revision = data.revision
    licenses: dict[str, str | None] = {}
    for hub_id in data.sources:
        try:
            info = HfApi().dataset_info(hub_id, revision=data.revision, timeout=20)
        except READ_FAILURES as error:
            problem, todo, refused = explain_read(error, "data set", hub_id, data.revision)
            if refused:
                raise DataError(problem, expected="local files, or a data set's Hub id", todo=todo) from None
            licenses[hub_id] = None  # offline: the cache may still hold the rows
            continue
        revision = info.sha if len(data.sources) == 1 else data.revision
        card = info.card_data.to_dict() if info.card_data else {}
        licenses[hub_id] = card.get("license") if isinstance(card.get("license"), str) else None
    return revision, licenses


def hub_rows(split: Split) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number from 1, row) of a split. Raises `DataError`; `HubError` where it can't be fetched.

    A file on the Hub with a broken line is an error without that line's number: `datasets` does not tell it.
    """
    import datasets

    from kto_release.hub import FAILURES, READ_FAILURES, explain_read  # brings huggingface_hub

    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(
            split.hub_id, split.config, data_dir=split.data_dir, split=split.name, revision=split.revision
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(
            f"the files of the data set {split.hub_id!r} can't be read: {_first_line(error.__cause__ or error)}",
            todo="download them, mend them, and give data.source the local files: then the row is named too",
        ) from None
    except ValueError as error:
        todo = "mend data.partitions or data.held_out"
        if "onfig name is missing" in str(error) or "BuilderConfig" in str(error):
            todo = "choose one of these configurations with data.config"
        raise DataError(f"{split.hub_id!r}: {_first_line(error)}", todo=todo) from None
    except READ_FAILURES as error:
        explained = isinstance(error, FAILURES)  # else it is a word of `datasets` itself
        why = explain_read(error, "data set", split.hub_id, split.revision).problem if explained else _first_line(error)
        raise HubError(
            f"the data set {split.hub_id!r} can't be fetched: {why}",
            todo="connect to the Hub, or give data.source local files",
        ) from None
    yield from enumerate(rows, 1)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    lines = text.splitlines()
    # "Config name is missing." names the choices in its second line.
    return " ".join(line.strip() for line in lines[:2]) if lines[0].startswith("Config name") else lines[0]
