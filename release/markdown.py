"""Text from people and models, put into Markdown so that it stays text: it can't open markup, a table cell or a fence.

The card's template prints through `escape` by itself; only what is wrapped in `Raw` is Markdown already.
"""

import re
from collections.abc import Sequence

MARKUP = re.compile(r"([\\`*\[\]<>|~$&])|(?<![^\W_])(_)|(_)(?![^\W_])")
"""Characters that can begin markup anywhere; an underscore inside a word can't."""
LINE_START = re.compile(r"^(?:[-+](?=\s|$)|#{1,6}(?=\s|$)|[-=:][-=: ]*$|\d+[.)](?=\s|$))")
"""What makes a heading, a list, a rule or a table at the start of a line."""
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters and those that reorder or hide text."""


class Raw(str):
    """Markdown that is meant as such."""

    __slots__ = ()


def plain(value: object) -> str:
    """One line of visible text."""
    return " ".join(INVISIBLE.sub("", str(value)).split())


def escape(value: object) -> str:
    """`value` as inline Markdown that shows exactly its text, on one line; `Raw` stays as it is."""
    if isinstance(value, Raw):
        return value
    text = MARKUP.sub(lambda match: "\\" + match.group(0), plain(value))
    return LINE_START.sub(_escape_start, text)


def _escape_start(match: re.Match[str]) -> str:
    text = match.group(0)
    return f"{text[:-1]}\\{text[-1]}" if text[0].isdigit() else f"\\{text}"


def paragraphs(text: str) -> Raw:
    """Free text of a person: each paragraph escaped, paragraphs kept apart."""
    parts = [escape(part) for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n"))]
    return Raw("\n\n".join(part for part in parts if part))


def code(value: object) -> Raw:
    """An inline code span. Not for tables: a bar in it would end the cell."""
    text = plain(value)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return Raw(f"{ticks}{pad}{text}{pad}{ticks}")


def fence(text: str, language: str = "") -> Raw:
    """A fenced block that nothing in `text` can close."""
    return verbatim(text.strip("\n"), language)


def verbatim(text: str, language: str = "") -> Raw:
    """The same with the line ends at begin and end of `text` kept: between the fences stands exactly it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Raw(f"{ticks}{language}\n{visible(text)}\n{ticks}")


def visible(text: str) -> str:
    """Text of several lines without what nobody sees."""
    return INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def link(text: object, url: str) -> Raw:
    """A link; the address is percent-encoded where it could end the link, and only http(s) becomes one."""
    address = plain(url)
    if not re.match(r"https?://[^\s/]", address):
        return Raw(f"{escape(text)} ({escape(address)})")
    safe = re.sub(r"[\s<>()\[\]\\`\"'|*_~$]", lambda match: _percent(match.group(0)), address)
    return Raw(f"[{escape(text)}]({safe})")


def _percent(character: str) -> str:
    # An underscore can't end a link's address, and %5F would only make it hard to read.
    return character if character == "_" else "".join(f"%{byte:02X}" for byte in character.encode())


def table(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> Raw:
    """A table; every cell is escaped unless it is `Raw`."""
    lines = [_row(columns), "|" + "---|" * len(columns), *(_row(row) for row in rows)]
    return Raw("\n".join(lines))


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(escape(cell) or " " for cell in cells) + " |"
