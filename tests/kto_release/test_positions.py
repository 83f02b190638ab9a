"""AlpacaEval's instructions are known by the hashes of their words."""

import json
import lzma
from pathlib import Path

from kto_release.positions import COUNT, collapsed, hashes, instruction_hash, position


def test_the_table_holds_805_different_hashes() -> None:
    """Each of the 805 positions has one hash of 16 hexadecimal digits."""
    assert sorted(hashes().values()) == list(range(COUNT))
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in hashes())


def test_whitespace_makes_no_difference_and_words_do() -> None:
    """Line breaks, tabs and doubled spaces are one space; case and words count. The hash is `sha256sum`'s beginning."""
    assert collapsed(" Write\t a\n\npoem. ") == "Write a poem."
    assert instruction_hash("Write a poem.") == instruction_hash(" Write\t a\n\npoem. ") == "5161653c2d6015e2"
    assert instruction_hash("Write a Poem.") != instruction_hash("Write a poem.")


def test_another_instruction_has_no_position() -> None:
    """What is not AlpacaEval's is null, never a guess."""
    assert position("An instruction that nobody else has.") is None


def test_the_table_is_the_order_of_alpaca_eval(shared_data: Path) -> None:
    """The official reference file holds the instructions in the table's order."""
    with lzma.open(shared_data / "alpaca_eval/outputs/gpt4_1106_preview.json.xz", "rt", encoding="utf-8") as file:
        rows = json.load(file)
    assert [position(row["instruction"]) for row in rows] == list(range(COUNT))
