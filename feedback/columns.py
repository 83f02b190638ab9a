"""The columns of one row: which are read, which may be passed over with a note, and which must not be.

The rule, for columns and for the keys of messages alike: what a layout reads is used; what is empty says nothing; what
the recipe ignores is ignored; what is metadata by its name (ids, dates, scores, models, sources, other answers) or
holds a bare number or a date can't be part of a conversation, and is counted as not used; anything else is an error.
"""

import datetime as dt
import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

from kto_release.feedback.rows import RowProblem
from kto_release.recipe import DataSection

WEIGHTS = re.compile(r"(.*_)?(weights?|importance)")
MEDIA = re.compile(r"(.*_)?(images?|videos?|audios?|pixel_values)")
FACTS = re.compile(
    r"(.*_)?(u?u?ids?|idx|index|at|dates?|time|timestamp|created|updated|scores?|ratings?|ranks?|rankings?|rewards?"
    r"|margins?|models?|policy|sources?|hash|md5|sha256|urls?|langs?|languages?|count|lengths?|tokens|category|categories|types?"
    r"|annotators?|users?|license|domain|topics?|tags|subset|split|dataset|version|probability|logps?|status)"
    r"|(score|rating|rank|is|has|in|num|n)_.+|unnamed_\d+"
)
"""Names of ids, dates, scores, origins, and of pandas' index ("", "Unnamed: 0"). A long text under such a name (an
article under "source") is no metadata."""
BESIDE = re.compile(
    r"(.*_)?(metadata|meta|comments?|reason|rationales?|critiques?)"
    r"|all_generated_responses|generations|original_(chosen|rejected|response)|raw_.*responses?|extra_info"
)
"""Names of what was said about an answer, or of other answers to the prompt, however long."""
LONG = 200
OWN = " (the data's own)"


class Rules(NamedTuple):
    """How the recipe wants rows to be read; the defaults are the recipe's."""

    layout: str = "auto"
    threshold: float | None = None
    columns: Mapping[str, str] = {}
    labels: Mapping[str, bool | None] = {}
    """By the text of a label, as `label_text` writes it."""
    roles: Mapping[str, str] = {}
    ignore: frozenset[str] = frozenset()
    reasoning: str = "keep"

    @classmethod
    def of(cls, data: DataSection) -> "Rules":
        """The rules of a recipe."""
        return cls(
            data.format,
            data.score_threshold,
            data.columns,
            {label_text(label): meaning for label, meaning in data.labels.items()},
            data.roles,
            frozenset(data.ignore),
            data.reasoning,
        )

    def ignores(self, name: str) -> bool:
        """Whether the recipe names this column or key as one to ignore."""
        return name in self.ignore or any("*" in pattern and fnmatchcase(name, pattern) for pattern in self.ignore)


def comment_of(row: Mapping[str, Any], rules: Rules) -> str | None:
    """What the user said about the answer: the column that data.columns names, `origin.comment`, or `comment`."""
    origin = row.get("origin")
    if "comment" in rules.columns:
        said = _at(row, rules.columns["comment"])[1]
    elif isinstance(origin, Mapping) and origin.get("comment"):
        said = origin["comment"]
    else:
        said = row.get("comment")
    return said.strip() or None if isinstance(said, str) else None


def label_text(label: Any) -> str:
    """A label as text: 1, 1.0 and "1" are one, true and "True" are one."""
    if isinstance(label, str):
        text = label.strip()
        return text.lower() if text.lower() in ("true", "false") else re.sub(r"^([-+]?\d+)\.0+$", r"\1", text)
    if isinstance(label, bool):
        return str(label).lower()
    return f"{label:.15g}" if isinstance(label, int | float) else str(label)


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, a NaN (pandas' null), an empty text, list or object, or lists of such."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if isinstance(value, list | tuple):
        return all(is_empty(item) for item in value)
    if isinstance(value, Mapping):
        return all(is_empty(item) for item in value.values())
    return isinstance(value, str) and not value.strip()


class Cells:
    """The columns of one row under the names that layouts know; remembers which were taken."""

    def __init__(self, row: Mapping[str, Any], rules: Rules, *, typeless: bool = False) -> None:
        self.rules, self.typeless = rules, typeless
        self.values: dict[str, Any] = dict(row)
        self.unused: list[str] = []
        self._taken: set[str] = set()
        if rules.columns:
            self._rename(row)

    def _rename(self, row: Mapping[str, Any]) -> None:
        found = {name: _at(row, path) for name, path in self.rules.columns.items()}
        taken = [path for path, _ in found.values()]
        for path in taken:
            top = path.split(".")[0]
            if path not in self.values and top in self.values:
                # What stands beside a value inside a record is a column of its own.
                self.values |= dict(_leaves(top, self.values.pop(top)))
        self.values = {
            name: value
            for name, value in self.values.items()
            if not any(name == path or name.startswith(f"{path}.") for path in taken)
        }
        for name in found.keys() & self.values.keys():
            self.values[f"{name}{OWN}"] = self.values.pop(name)
        self.values |= {name: value for name, (_, value) in found.items()}

    def has(self, name: str) -> bool:
        """Whether the row has a value there; null is none."""
        value = self.values.get(name)
        return value is not None and not (isinstance(value, float) and math.isnan(value))

    def first(self, names: tuple[str, ...]) -> str | None:
        """The first of these columns that has a value."""
        return next((name for name in names if self.has(name)), None)

    def take(self, name: str) -> Any:
        """The value of a column, which is thereby used; None where there is none."""
        self._taken.add(name)
        return self.values[name] if self.has(name) else None

    def called(self, name: str) -> str:
        """A column as the user knows it."""
        path = self.rules.columns.get(name)
        return f"{name!r}" if path is None else f"{name!r} (data.columns takes it from {path!r})"

    def check_rest(self, known: frozenset[str]) -> None:
        """Account for every column that nothing took. Raises `RowProblem` with those that must not be passed over.

        `known` are the columns of all layouts: one of them that is not used is never metadata.
        """
        left = self.left()
        if left:
            if self.typeless:
                left = {name: _number_of(value) for name, value in left.items()}
            self.unused += check_names(left, "column", known)

    def left(self) -> dict[str, Any]:
        """The columns that hold something, and that neither anything took nor the recipe ignores."""
        return {
            name: value
            for name, value in self.values.items()
            if name not in self._taken and not is_empty(value) and not self.rules.ignores(name)
        }


def check_names(left: Mapping[str, Any], what: str, known: frozenset[str] = frozenset()) -> list[str]:
    """The names that are metadata, of what nothing reads. Raises `RowProblem` for the others, all at once."""
    unused, wrong = [], []
    for name, value in left.items():
        plain = _plain_name(name)
        if WEIGHTS.fullmatch(plain):
            if label_text(value) != "1":
                raise RowProblem(
                    f"{name} is {value!r}: weights of single rows are not used",
                    f"a weight in {name!r}",
                    todo=f"data.ignore: [{name}] trains all rows alike; or leave out the rows",
                )
            unused.append(name)
        elif MEDIA.fullmatch(plain) or name in known:
            wrong.append(name)
        elif _is_metadata(plain, value):
            unused.append(name)
        else:
            wrong.append(name)
    if wrong:
        names = ", ".join(repr(name) for name in wrong)
        wrong = [name.removesuffix(OWN) for name in wrong]
        media = [name for name in wrong if MEDIA.fullmatch(_plain_name(name))]
        why = "; only text is trained on" if media == wrong else " and may be part of the conversation"
        one = len(wrong) == 1
        raise RowProblem(
            f"{what} {names} is not used{why}" if one else f"{what}s {names} are not used{why}",
            todo=f"name what is to be left out: data.ignore: [{', '.join(wrong)}]"
            + ("" if what != "column" or media == wrong else ", or what it is: data.columns"),
        )
    return unused


def _number_of(text: Any) -> Any:
    """A number that a file without types holds as text."""
    return float(text) if isinstance(text, str) and re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", text) else text


def _is_metadata(plain: str, value: Any) -> bool:
    if isinstance(value, int | float | dt.date | dt.time | dt.timedelta) or BESIDE.fullmatch(plain):
        return True
    return FACTS.fullmatch(plain) is not None and not (isinstance(value, str) and len(value) > LONG)


@lru_cache(maxsize=4096)
def _plain_name(name: str) -> str:
    """A name in lower case with underscores: "chosen-rating", "createdAt" and "meta.model" end in words of FACTS."""
    if not name.strip():
        return "unnamed_0"
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def _at(row: Mapping[str, Any], path: str) -> tuple[str, Any]:
    """The value of a column or, where no column has this name, at a path of keys and places; and that path."""
    if path in row:
        return path, row[path]
    value: Any = row
    keys = path.split(".")
    for depth, key in enumerate(keys):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list | tuple) and re.fullmatch(r"-?\d+", key) and -len(value) <= int(key) < len(value):
            keys[depth] = str(int(key) % len(value))
            value = value[int(key)]
        else:
            return path, None
    return ".".join(keys), value


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    if isinstance(value, list | tuple):
        return [leaf for place, inner in enumerate(value) for leaf in _leaves(f"{name}.{place}", inner)]
    return [(name, value)]
