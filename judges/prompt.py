"""The question as messages: a judge's prompt, with the instruction and the two answers filled in.

A prompt is text in AlpacaEval's form: turns between <|im_start|> and <|im_end|>, with {instruction}, {output_1} and
{output_2}. The turns are told apart first and filled afterwards, in one pass, so nothing that a model wrote can be read
as a turn or as another place to fill. Filled this way, the official prompt gives alpaca_eval's own messages.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kto_release.digests import sha256_of
from kto_release.errors import JudgeError
from kto_release.judges.official import official_prompt

TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
PLACE = re.compile(r"\{(instruction|output_1|output_2)\}")
FOREIGN_MARKS = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>")
"""Text that some model's tokenizer takes for the structure of a conversation."""


class Letters(NamedTuple):
    """What a judge answers with."""

    first: str = "m"
    """The first output is better."""
    second: str = "M"
    tie: str | None = None
    """Neither is; null: the prompt allows no draw."""

    @property
    def all(self) -> tuple[str, ...]:
        """Each of them."""
        return (self.first, self.second) if self.tie is None else (self.first, self.second, self.tie)

    def share(self, letter: str) -> float:
        """What a letter says: the probability that the first output is better."""
        return {self.first: 1.0, self.second: 0.0}.get(letter, 0.5)

    def __str__(self) -> str:
        *others, last = map(repr, self.all)
        return f"{', '.join(others)} or {last}"


class JudgePrompt(NamedTuple):
    """A prompt, taken apart into its turns."""

    name: str
    """"alpaca_eval", or the file's name without its suffix."""
    sha256: str
    turns: tuple[tuple[str, str], ...]
    """Role and unfilled text of each."""
    letters: Letters = Letters()

    def fill(self, instruction: str, first: str, second: str) -> list[dict[str, str]]:
        """Messages with role and content."""
        values = {"instruction": instruction, "output_1": first, "output_2": second}
        return [
            {"role": role, "content": PLACE.sub(lambda match: values[match[1]], content)}
            for role, content in self.turns
        ]

    @property
    def characters(self) -> int:
        """Length without what is filled in."""
        return sum(len(PLACE.sub("", content)) for _, content in self.turns)


def load_prompt(name: str, letters: Sequence[str] | None = None) -> JudgePrompt:
    """The prompt "alpaca_eval", read from the alpaca_eval package as data, or one from a file that asks for `letters`.

    Raises `JudgeError` where there is no such file, or it is not in AlpacaEval's form.
    """
    if name == "alpaca_eval":
        text = official_prompt()
    else:
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JudgeError(
                f"the judge's prompt {name!r} can't be read: {getattr(error, 'strerror', None) or error}",
                expected='"alpaca_eval", or a text file in its form',
            ) from None
        name = path.stem
    turns = tuple((match[1], match[2].strip()) for match in TURN.finditer(text))
    places = {place for _, content in turns for place in PLACE.findall(content)}
    if places != {"instruction", "output_1", "output_2"} or TURN.sub("", text).strip() or turns[-1][0] != "user":
        raise JudgeError(
            f"the judge's prompt {name!r} is not in AlpacaEval's form",
            expected="turns between <|im_start|>role and <|im_end|>, the last one the user's, and in them "
            "{instruction}, {output_1} and {output_2}",
        )
    plain = [list(turn) for turn in turns]
    if letters is None:
        return JudgePrompt(name, sha256_of(plain), turns)
    return JudgePrompt(name, sha256_of({"turns": plain, "letters": list(letters)}), turns, Letters(*letters))
