"""Where an instruction stands among AlpacaEval's 805: its length control knows each by its position.

positions.txt holds a line per instruction, in AlpacaEval's order: the first 16 hexadecimal digits of the sha256 of the
text with its whitespace collapsed. Hashes, never texts, since the instructions are CC BY-NC 4.0. All 805 differ.
"""

import hashlib
from functools import cache
from importlib.resources import files

COUNT = 805
DIGITS = 16


def collapsed(text: str) -> str:
    """The text with every run of whitespace as one space, and none around it."""
    return " ".join(text.split())


def instruction_sha256(text: str) -> str:
    """sha256 of an instruction; spaces and line breaks make no difference to it."""
    return hashlib.sha256(collapsed(text).encode("utf-8", "surrogatepass")).hexdigest()


def instruction_hash(text: str) -> str:
    """What positions.txt holds for an instruction."""
    return instruction_sha256(text)[:DIGITS]


def position(instruction: str) -> int | None:
    """Position of AlpacaEval's instruction, from 0 to 804; null where it is not AlpacaEval's."""
    return hashes().get(instruction_hash(instruction))


@cache
def hashes() -> dict[str, int]:
    """Position by hash, for all of AlpacaEval's instructions."""
    lines = (files("kto_release") / "positions.txt").read_text(encoding="ascii").split()
    return {line: number for number, line in enumerate(lines)}
