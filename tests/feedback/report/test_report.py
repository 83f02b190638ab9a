"""`kto-release feedback`: what is in feedback before it is trained on."""

import json

import pytest
from command import run_command
from feedback_files import write_recipe

from kto_release.feedback.report.likeness import languages, near_duplicates
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


def thumb(number, user, completion="It is."):
    return {
        "prompt": f"Question {number}?",
        "completion": completion,
        "label": number % 2 == 0,
        "origin": {"user": user},
    }


def test_languages_of_answers():
    """By the answer; what is too short to tell is counted as such."""
    german, french = "Die Melone ist reif, wenn sie hohl klingt.", "Le melon est mûr quand il sonne creux, je crois."
    assert languages([item(german, True), item(french, True), item(german, False), item("Oui.", True)]) == {
        "de": 2, "fr": 1, "": 1,
    }  # fmt: skip


def test_near_duplicates_are_like_an_earlier_answer():
    """One changed word of forty is like it; the same words are no other answer, and short answers are not compared."""
    words = [f"word{number}" for number in range(40)]
    first, second, other = " ".join(words), " ".join([*words[:39], "end"]), " ".join(reversed(words))
    assert (
        near_duplicates([item(text, True) for text in (first, second, first, other, "Yes, it is.", "Yes, it was.")])
        == 1
    )


def test_one_users_rows_are_capped_and_counted(monkeypatch, capfd, tmp_path):
    """The first ones stay; the others are left out, with their reason, in each partition."""
    path = tmp_path / "f.jsonl"
    rows = [thumb(number, "ann" if number < 7 else f"u{number}") for number in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = write_recipe(
        tmp_path,
        tmp_path / "none",
        **{"data.source": str(path), "data.partitions": 1, "data.held_out": None, "data.per_user": 3},
    )
    result = run_command(monkeypatch, capfd, "feedback", recipe, "--runs", tmp_path / "runs")
    assert result.code == 0, result.err
    assert "iteration 1: 4 rows left out: beyond data.per_user of one user" in result.err
    found = json.loads((tmp_path / "runs" / "small" / "feedback.json").read_text(encoding="utf-8"))
    assert (found["feedback"], found["users"], found["largest_user"]) == (6, 4, 0.5)


def test_a_recipes_rows_are_shown_as_they_are_trained(monkeypatch, capfd, tmp_path, tiny_model):
    """With the template's marks and the end of the answer."""
    page = tmp_path / "f.html"
    recipe = write_recipe(tmp_path, tiny_model)
    result = run_command(monkeypatch, capfd, "feedback", recipe, "--html", page, "--runs", tmp_path / "runs")
    assert result.code == 0, result.err
    text = page.read_text(encoding="utf-8")
    assert "As trained" in text
    assert "&lt;/s&gt;</b>" in text


def test_rows_of_every_partition_are_named_at_once(monkeypatch, capfd, tmp_path):
    """The second partition's too, and nothing is recorded."""
    recipe = write_recipe(tmp_path, tmp_path / "none")
    for name in ("one", "held"):
        (tmp_path / "data" / f"{name}.jsonl").write_text('{"prompt": "a", "completion": "b", "label": "maybe"}\n')
    result = run_command(monkeypatch, capfd, "feedback", recipe, "--runs", tmp_path / "runs")
    assert result.code == 1
    assert "one.jsonl, row 1" in result.err
    assert "held.jsonl, row 1" in result.err
    assert not (tmp_path / "runs").exists()
