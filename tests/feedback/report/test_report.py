"""`kto-release feedback`: what is in feedback before it is trained on."""

import json

import pytest
from command import run_command

from kto_release.feedback.report.measures import AGREEMENT, REFUSAL, Item, auc, predictors, private, repeats
from kto_release.feedback.rows import Feedback


def item(answer, desirable, *, prompt="Is it ripe?", **more):
    return Item("iteration 1", f"row {answer}", Feedback((("user", prompt),), answer, desirable), **more)


def test_auc_counts_pairs():
    """Of the 4 pairs of (2, 3) against (1, 2): 2>1, 3>1, 3>2 are won and 2=2 is half: 3.5 / 4."""
    assert auc([2, 3], [1, 2]) == 0.875
    assert auc([1], [1]) == 0.5


def test_what_tells_the_label():
    """Longer answers that are all liked give 1; below 30 of a label nothing is measured; a model predicts without itself."""
    items = [item("long answer", True, model="a") for _ in range(30)] + [
        item("no", False, model="b") for _ in range(30)
    ]
    found = {p.name: p.auc for p in predictors(items)}
    assert found["length of the answer (characters)"] == 1.0
    assert found["phrases of refusal"] == 0.5
    assert found["name of the model"] == 1.0
    assert {p.auc for p in predictors(items[1:])} == {None}
    mixed = [item("x", number % 2 == 0, model="a" if number < 40 else "b") for number in range(80)]
    assert {p.name: p.auc for p in predictors(mixed)}["name of the model"] == 0.0


def test_repeats():
    """The same row twice, nearly twice, and one answer with both labels."""
    found = repeats([item("Yes.", True), item("Yes.", True), item("yes", True), item("Yes!", False), item("No", True)])
    assert (found.twice, found.nearly, found.both) == (1, 1, [("row Yes.", "row Yes!")])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail ann@example.org", "e-mail addresses"),
        ("key sk-abcdefghijklmnop1234", "keys and tokens"),
        ("call +49 30 1234567", "phone numbers"),
        ("at 10.0.0.1.", "IP addresses"),
        ("host 10.0.0.1 is up", "IP addresses"),
        ("version 1.2.3", None),
    ],
)
def test_private_texts(text, kind):
    """Each kind by its pattern, in prompts as in answers."""
    found = {name for name, count in private([item("x", True, prompt=text)]).items() if count}
    assert found == ({kind} if kind else set())


def test_phrases():
    """Agreement and refusal by their usual words."""
    assert AGREEMENT.search("You're absolutely right, it is.")
    assert REFUSAL.search("I'm sorry, I can't help with that.")
    assert not REFUSAL.search("You can help yourself.")


def test_the_command_shows_tables_and_writes_a_page(monkeypatch, capfd, tmp_path):
    """Text of the data is escaped on the page; users and models come from `origin`; a page is not replaced."""
    rows = [
        {
            "prompt": "<script>alert(1)</script>",
            "completion": "Yes.",
            "label": True,
            "origin": {"user": "u1", "model": "m"},
        },
        {
            "prompt": "<script>alert(1)</script>",
            "completion": "Yes.",
            "label": False,
            "origin": {"user": "u1", "model": "m"},
        },
        {"prompt": "Is it ripe?", "completion": "No.", "label": True, "origin": {"user": "u2", "model": "m"}},
    ]
    path, page = tmp_path / "f.jsonl", tmp_path / "f.html"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run_command(monkeypatch, capfd, "feedback", path, "--html", page)
    assert result.code == 0, result.err
    assert "share of the largest of 2 users" in result.out
    assert "67%" in result.out
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<svg" in text
    assert run_command(monkeypatch, capfd, "feedback", path, "--html", page).code == 1


def test_rows_that_cannot_be_used_end_it(monkeypatch, capfd, tmp_path):
    """With their numbers, and no page."""
    path, page = tmp_path / "f.jsonl", tmp_path / "f.html"
    path.write_text('{"prompt": "a", "completion": "b", "label": "perhaps"}\n', encoding="utf-8")
    result = run_command(monkeypatch, capfd, "feedback", path, "--html", page)
    assert (result.code, page.exists()) == (1, False)
    assert "row 1" in result.err
