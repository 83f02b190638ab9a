"""What all imports share: nothing half-written, all problems at once, accounts that add up."""

import pytest

from kto_release.feedback.importers.redacting import replaced
from kto_release.feedback.layouts import parse

ASK = [{"role": "user", "content": "Is it ripe?"}]


def swift(label, text="Yes."):
    return {"messages": [*ASK, {"role": "assistant", "content": text}], "label": label}


def test_all_bad_records_are_named_and_nothing_is_written(importer):
    """Each with its file and number; no row, no account, no temporary file."""
    path = importer.file("rows.jsonl", [swift(True), {"strange": 1}, swift(2), swift(False)])
    result = importer.run("ms-swift", path, "--out", importer.out)
    assert result.code == 1
    assert "2 of 4 records can't be read; nothing was written" in result.err
    assert "rows.jsonl, record 2: no record of ms-swift's rows: it has strange" in result.err
    assert "rows.jsonl, record 3: the rating is 2: a number on an unknown scale" in result.err
    assert [p.name for p in importer.folder.iterdir()] == ["rows.jsonl"]


def test_bad_records_can_be_counted(importer):
    """--bad-rows skip leaves them out, with their reason in the account."""
    made = importer("ms-swift", [swift(True), {"strange": 1}], "--bad-rows", "skip")
    assert made.left_out == {"a record that can't be read: no record of ms-swift's rows": 1}


def test_an_existing_file_is_kept(importer):
    """--out never replaces a file without --force."""
    importer("ms-swift", [swift(True)])
    before = importer.out.read_bytes()
    result = importer.run("ms-swift", importer.file("b.jsonl", [swift(False)]), "--out", importer.out)
    assert result.code == 1
    assert "exists" in result.err
    assert importer.out.read_bytes() == before
    assert importer("ms-swift", [swift(False)], "--force").talks[0][2] is False


def test_floats_that_a_table_made_of_labels(importer):
    """0.0 and 1.0 are what pandas makes of booleans with gaps."""
    made = importer("ms-swift", [{**swift(True), "label": 1.0}, {**swift(True), "label": 0.0}])
    assert [label for *_, label in made.talks] == [True, False]


def test_zero_beside_minus_one_is_asked_about(importer):
    """0 is bad on a scale of 0 and 1, and neutral on one of -1 to 1."""
    path = importer.file("r.jsonl", [swift(0), swift(-1)])
    result = importer.run("ms-swift", path, "--out", importer.out)
    assert "is 0 neutral or bad?" in result.err


def test_models_and_dates_can_be_chosen(importer):
    """Other models' answers and earlier ratings are counted."""

    def rated(name, model, time):
        reply = {"choices": [{"message": {"role": "assistant", "content": name}}], "model": model}
        return {"id": name, "request": {"messages": ASK}, "response": reply, "rating": "up", "time": time}

    rows = [rated("a", "big", "2026-10-02"), rated("b", "small", "2026-10-02"), rated("c", "big", "2026-09-01")]
    made = importer("openai-log", rows, "--model", "^big", "--since", "2026-10-01")
    assert [text for _, text, _ in made.talks] == ["a"]
    assert made.left_out == {"answer of another model": 1, "before 2026-10-01": 1}


def test_users_are_hashed_with_the_salt(importer, monkeypatch):
    """The same user is the same stand-in under one salt, another one under another; the name stands nowhere."""
    row = {"id": 1, "prompt": "Is it ripe?", "response": "Yes.", "workspace": "w", "username": "ann", "rating": "GOOD"}
    rows = [row, {**row, "id": 2}]
    first = importer("anythingllm", rows)
    users = {r["origin"]["user"] for r in first.rows}
    assert len(users) == first.account["users"] == 1
    assert "ann" not in importer.out.read_text(encoding="utf-8")
    monkeypatch.setenv("KTO_RELEASE_SALT", "another")
    assert {r["origin"]["user"] for r in importer("anythingllm", rows, "--force").rows} != users


def test_guess_names_the_source(importer):
    """Of each file by its first record; a file of no source is an error."""
    path = importer.file("x.jsonl", [swift(True)])
    assert importer.run("--guess", path).out == "x.jsonl: ms-swift\n"
    result = importer.run("--guess", importer.file("y.jsonl", [{"a": 1}]))
    assert (result.code, "no known source" in result.err) == (1, True)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("tensorzero", {"id": "i", "function_name": "f", "input": {}, "output": [], "timestamp": "2026-10-01"}),
        ("langsmith", {"id": "f", "run_id": "r", "key": "thumb", "score": 1}),
        ("chainlit", {"id": "s", "threadId": "t", "type": "run", "input": "", "output": "", "createdAt": "2026-10-01"}),
        ("langfuse", {"id": "t", "timestamp": "2026-10-01", "user_id": "u", "input": "a", "output": "b"}),
        ("helicone", {"request_id": "q", "response_status": 200}),
        ("openai-log", {"id": "a", "rating": "up"}),
        ("open-webui", {"id": "f", "data": {}, "meta": {}, "snapshot": None}),
        ("dify", {"feedback_id": "f", "ai_response": "a", "feedback_rating_raw": "like"}),
    ],
)
def test_guess_tells_alike_exports_apart(importer, name, record):
    """Tables without ratings and exports that can't be used have a name too."""
    assert importer.run("--guess", importer.file("x.jsonl", [record])).out == f"x.jsonl: {name}\n"


def test_calls_thoughts_and_tools_are_read_by_training(importer):
    """The answer that holds more than text is written as a message, which training reads whole."""
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."}
    request = {"messages": ASK, "tools": [tool]}
    log = {"id": "a", "request": request, "response": {"choices": [{"message": answer}]}, "rating": "up"}
    (row,) = importer("openai-log", [log]).rows
    (feedback,) = parse(row).feedback
    assert (feedback.tools, feedback.answer["reasoning_content"]) == ([tool], "Hm.")
    assert feedback.answer["tool_calls"][0]["function"] == {"name": "look", "arguments": {}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["slack", "x.jsonl", "--out", "o.jsonl"], "no source 'slack'"),
        (["dify", "--out", "o.jsonl"], "no files to import"),
        (["dify", "x.jsonl"], "no --out"),
        (["dify", "nowhere.jsonl", "--out", "o.jsonl"], "no file 'nowhere.jsonl'"),
        (["dify", "x.jsonl", "--out", "o.jsonl", "--desirable", ">=1"], "belong together"),
        (["dify", "x.jsonl", "--out", "o.jsonl", "--model", "("], "no regular expression"),
        (["dify", "x.jsonl", "--out", "o.jsonl", "--since", "soon"], "--since"),
        (["dify", "x.jsonl", "--out", "o.jsonl", "--column", "x"], "WHAT=COLUMN"),
    ],
)
def test_what_is_asked_for_wrongly(importer, monkeypatch, words, told):
    """One clear error each."""
    monkeypatch.chdir(importer.folder)
    result = importer.run(*words)
    assert (result.code, told in result.err, result.err.count("Traceback")) == (1, True, 0)


def test_redact_without_its_extra_says_how_to_install_it(importer, monkeypatch):
    """Nothing is read or written before."""
    monkeypatch.setattr("kto_release.feedback.importers.redacting.find_spec", lambda _name: None)
    path = importer.file("x.jsonl", [swift(True)])
    result = importer.run("ms-swift", path, "--out", importer.out, "--redact")
    assert (result.code, importer.out.exists()) == (1, False)
    assert "pip install 'kto-release[redact]'" in result.err


def test_what_was_found_is_replaced_by_its_kind():
    """Of two that overlap the first counts."""
    found = [(0, 3, "PERSON"), (7, 14, "EMAIL_ADDRESS"), (9, 14, "URL")]
    assert replaced("Ann at a@b.org now", found) == "<PERSON> at <EMAIL_ADDRESS> now"
