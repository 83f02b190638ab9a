"""Nothing that a model, a data set or a release says can drive the terminal."""

import pytest

from kto_release import console

EVIL = "a\x1b[2Jb\x1b]0;title\x07c\rd\x9be\u202ef"


@pytest.mark.parametrize("show", [console.say, console.heading, console.warn, console.fail])
def test_control_characters_are_spelled(show, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences, carriage returns and turned text come out as what they are spelled by."""
    show(EVIL)
    said = "".join(capsys.readouterr())
    assert "a\\x1b[2Jb\\x1b]0;title\\x07c\\rd\\x9be\\u202ef" in said
    assert not any(mark in said for mark in "\x1b\x07\r\x9b\u202e")


def test_tables_too(capsys: pytest.CaptureFixture[str]) -> None:
    """In titles, columns and cells."""
    console.table("t\x1bt", ["c\x1bc"], [["v\x1bv"]])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert all(f"{letter}\\x1b{letter}" in said for letter in "tcv")


def test_line_ends_and_tabs_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """They are part of our own messages."""
    console.say("one\n\ttwo")
    assert capsys.readouterr().out.split() == ["one", "two"]
