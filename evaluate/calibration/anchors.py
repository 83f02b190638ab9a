"""Anchors: models whose answers are stored and whose official scores are known, to calibrate another judge with.

A folder of them holds files of alpaca_eval's two formats, in itself or in annotations/ and outputs/ below it:
annotations (both answers and the official preference) and model_outputs (answers alone, to be compared with those of
gpt4_1106_preview, in the folder too or from the Hub). A file is known by its name, or its generator's, on the official
leaderboard.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import DataError
from kto_release.evaluate.instructions import official_outputs
from kto_release.evaluate.scoring.leaderboard import Published, leaderboard
from kto_release.json_rows import read_objects
from kto_release.judges.official import OFFICIAL_JUDGE, OFFICIAL_REFERENCE
from kto_release.judges.rows import Judged, read_rows
from kto_release.positions import position

SUFFIXES = (".json", ".json.gz", ".json.xz")


class Anchor(NamedTuple):
    """One model with known scores."""

    published: Published
    rows: dict[int, Judged]
    """By position in AlpacaEval; the preference is the official judge's, null where it is not stored."""


def load_anchors(folder: Path) -> list[Anchor]:
    """The anchors in a folder, in the order of their official win rates. Raises `DataError`."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {str(folder)!r}", expected="a folder of anchors")
    places = [folder, folder / "annotations", folder / "outputs"]
    paths = [path for place in places for path in sorted(place.glob("*")) if path.name.endswith(SUFFIXES)]
    files = [(path, read_objects(path)) for path in paths]
    stored = next((rows for _, rows in files if rows[0].get("generator") == OFFICIAL_REFERENCE), None)
    found: dict[str, Anchor] = {}
    unknown = []
    for path, rows in files:
        if rows is stored:
            continue
        published = _published(path, rows)
        if published is None:
            unknown.append(path.name)
        elif published.name not in found:  # annotations come first, and hold more
            found[published.name] = Anchor(published, _rows(path, rows, stored))
    if not found:
        raise DataError(
            f"{str(folder)!r} holds no anchor" + (f"; not on the official leaderboard: {unknown}" if unknown else ""),
            expected="annotations or outputs of models on AlpacaEval 2.0's leaderboard, named as there",
        )
    return sorted(found.values(), key=lambda anchor: anchor.published.win_rate)


def draw(anchors: Sequence[Anchor], size: int | None, seed: int) -> list[int]:
    """Positions to judge: a seeded sample, the same for all anchors, of what all of them hold; null: all of that.

    Raises `DataError` where they hold fewer than two in common.
    """
    common = sorted(set.intersection(*(set(anchor.rows) for anchor in anchors)))
    if len(common) < 2:
        raise DataError(f"the anchors have {len(common)} instructions in common", expected="at least two")
    if size is None or size >= len(common):
        return common
    return sorted(random.Random(seed).sample(common, size))


def _published(path: Path, rows: Sequence[dict[str, Any]]) -> Published | None:
    names = [path.name.split(".json")[0], rows[0].get("generator_2"), rows[0].get("generator")]
    return next((leaderboard()[name] for name in names if isinstance(name, str) and name in leaderboard()), None)


def _rows(path: Path, rows: Sequence[dict[str, Any]], stored: Sequence[dict[str, Any]] | None) -> dict[int, Judged]:
    if "output_2" in rows[0]:
        annotations = read_rows(path)
        official = annotations.annotator == OFFICIAL_JUDGE
        judged = [row if official else row._replace(preference=None) for row in annotations.rows]
    else:
        reference = _by_position(stored, "output") if stored else _official_reference()
        judged = [
            Judged(row["instruction"], row.get("dataset"), row["output"], reference[number], None)
            for row in rows
            if (number := position(str(row.get("instruction")))) is not None
            and isinstance(row.get("output"), str)
            and number in reference
        ]
    placed = {number: row for row in judged if (number := position(row.instruction)) is not None}
    if len(placed) < len(rows):
        raise DataError(
            f"{path.name}: {len(rows) - len(placed)} of {len(rows)} rows are no answer to an instruction of AlpacaEval",
            expected="each of AlpacaEval's instructions once, with a text as its answer",
        )
    return placed


def _by_position(rows: Sequence[dict[str, Any]], key: str) -> dict[int, str]:
    return {
        number: row[key]
        for row in rows
        if (number := position(str(row.get("instruction")))) is not None and isinstance(row.get(key), str)
    }


def _official_reference() -> dict[int, str]:
    texts = official_outputs().texts
    return {number: text for instruction, text in texts.items() if (number := position(instruction)) is not None}
