"""Names, addresses and numbers of people taken out of rows by presidio-analyzer, an optional extra."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from kto_release.errors import DataError


def redactor() -> Callable[[str], str]:
    """What puts <PERSON>, <EMAIL_ADDRESS> and so on in the place of what Presidio finds in an English text.

    Raises `DataError` with the command to install it.
    """
    if find_spec("presidio_analyzer") is None:
        raise DataError("--redact needs presidio-analyzer", todo="pip install 'kto-release[redact]'")
    if find_spec("en_core_web_lg") is None:
        raise DataError(
            "--redact needs the language model that presidio-analyzer reads with",
            todo="python -m spacy download en_core_web_lg",
        )
    from presidio_analyzer import AnalyzerEngine

    engine = AnalyzerEngine()

    def redact(text: str) -> str:
        return replaced(text, [(found.start, found.end, found.entity_type) for found in engine.analyze(text, "en")])

    return redact


def replaced(text: str, found: list[tuple[int, int, str]]) -> str:
    """The text with its (start, end, kind) as <KIND>; where two overlap, the one that starts first, then the longer."""
    parts, at = [], 0
    for start, end, kind in sorted(found, key=lambda f: (f[0], -f[1])):
        if start >= at:
            parts += [text[at:start], f"<{kind}>"]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def redacted(row: dict[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    """A row whose every text of a conversation went through `redact`, calls of tools and the comment included."""
    origin = row["origin"]
    if "comment" in origin:
        origin = {**origin, "comment": redact(origin["comment"])}
    return {
        **row,
        "prompt": _all(row["prompt"], redact),
        "completion": _all(row["completion"], redact),
        "origin": origin,
    }


def _all(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_all(item, redact) for item in value]
    if isinstance(value, dict):
        return {key: item if key in ("role", "type", "id") else _all(item, redact) for key, item in value.items()}
    return value
