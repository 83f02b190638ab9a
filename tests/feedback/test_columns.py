"""Every column and message key is read, ignored by name, metadata that is counted, or an error that names it."""

import pytest

from kto_release.feedback.columns import Rules, label_text
from kto_release.feedback.layouts import parse
from kto_release.feedback.rows import Feedback, RowProblem

ROW = {"prompt": "Hi", "completion": "Hello.", "label": True}
USER = {"role": "user", "content": "Hi"}
LIKED = {"role": "assistant", "content": "Hello."}
DISLIKED = {"role": "assistant", "content": "As an AI"}
PAIR = {"prompt": "Hi", "chosen": [USER, LIKED], "rejected": [USER, DISLIKED]}
EXPECTED = [Feedback((("user", "Hi"),), "Hello.", True), Feedback((("user", "Hi"),), "As an AI", False)]


def problem(row, rules=None, **options):
    with pytest.raises(RowProblem) as caught:
        parse(row, rules, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("beside", "unused"),
    [
        ({"prompt_id": "a", "all_generated_responses": ["x", "y"], "all_rm_scores": [0.1, 0.2]}, 3),
        ({"prompt_id": "a", "messages": [USER, LIKED], "score_chosen": 8.0, "score_rejected": 3.0}, 3),
        ({"source": "evol", "chosen-rating": 5.0, "chosen-model": "a", "rejected-rating": 4.0, "rejected-model": "b"}, 5),
        ({"createdAt": "2026-01-01", "in_gsm8k_train": False, "margin": 1.5, "comment": "good " * 100}, 4),
        ({"context": None, "docs": [], "extra": {"a": ""}, "images": [None]}, 0),
        ({"origin": {"source": "log", "id": 7}}, 0),
    ],
)  # fmt: skip
def test_metadata_of_known_sets_is_counted_and_needs_no_key(beside, unused):
    """Snorkel's, UltraFeedback's, Argilla's columns, empty ones, and an importer's origin."""
    parsed = parse({**PAIR, **beside})
    assert parsed.feedback == EXPECTED
    assert len(parsed.unused) == unused


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"context": "x"}, "column 'context' is not used and may be part of the conversation"),
        ({"context": "x", "docs": ["y"]}, "columns 'context', 'docs' are not used and may be part of the conversation"),
        ({"背景": "x"}, "column '背景' is not used and may be part of the conversation"),
        ({"source": "x" * 201}, "column 'source' is not used and may be part of the conversation"),
        ({"images": ["cat.png"]}, "column 'images' is not used; only text is trained on"),
        ({"weight": 0.5}, "weight is 0.5: weights of single rows are not used"),
        ({"messages": [USER]}, "column 'messages' is not used and may be part of the conversation"),
        ({"kto_tag": False}, "label and kto_tag contradict each other"),
    ],
)
def test_what_may_be_part_of_the_conversation_is_an_error_until_it_is_ignored(beside, words):
    """It is named, and data.ignore with that name reads the row."""
    row = {**ROW, **beside}
    if "messages" in beside:
        row["messages"] = [{"role": "user", "content": "Something else"}]
    assert problem(row) == words
    if "contradict" not in words:
        assert parse(row, Rules(ignore=frozenset(beside))).feedback == EXPECTED[:1]
        assert parse(row, Rules(ignore=frozenset({f"{name[:3]}*" for name in beside}))).feedback == EXPECTED[:1]


def test_keys_of_messages_follow_the_same_rule():
    """Empty keys say nothing, ids are counted, a speaker's name is an error."""
    nulls = {**LIKED, "refusal": None, "annotations": [], "tool_calls": None}
    parsed = parse({"messages": [{**USER, "id": "m1"}, nulls], "label": True})
    assert (parsed.feedback, parsed.unused) == (EXPECTED[:1], ["id (of messages)"])
    named = {"messages": [{**USER, "name": "Ann"}, LIKED], "label": True}
    assert problem(named) == (
        "of a message in 'messages', the key 'name' is not used and may be part of the conversation"
    )
    assert parse(named, Rules(ignore=frozenset({"name"}))).feedback == EXPECTED[:1]


def test_system_and_history_stand_before_the_prompt_in_every_layout():
    """Pairs, labels, scores and ShareGPT's alike; two system messages that differ are an error."""
    context = {"system": "Be brief.", "history": [["One?", "1"]]}
    before = (("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Hi"))
    rows = [
        ROW,
        PAIR,
        {"prompt": "Hi", "completions": ["Hello."], "scores": [1]},
        {"prompt": "Hi", "completion": "Hello.", "score": 1},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "label": 1},
    ]
    for row in rows:
        found = parse({**row, **context}, Rules(threshold=1)).feedback
        assert found[0] == Feedback(before, "Hello.", True)
    talk = {"messages": [{"role": "system", "content": "Be long."}, USER, LIKED], "label": 1, "system": "Be brief."}
    assert problem(talk) == "the column 'system' and the system message of the conversation differ"


def test_labels_of_ones_own():
    """Only what data.labels names is a label; null leaves the row out without a fault; 1, 1.0 and "1" are one."""
    rules = Rules(labels={label_text(1): True, label_text(-1): False, label_text("neutral"): None})
    assert [parse({**ROW, "label": label}, rules).feedback[0].desirable for label in (1, 1.0, "1", -1, "-1.0")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert problem({**ROW, "label": True}, rules) == "label is True, none of data.labels (1, -1, neutral)"
    with pytest.raises(RowProblem) as caught:
        parse({**ROW, "label": "neutral"}, rules)
    assert not caught.value.fault


def test_labels_without_a_type():
    """Floats of a table are labels; texts only where a file has nothing but text."""
    assert parse({**ROW, "label": 1.0}).feedback == EXPECTED[:1]
    assert problem({**ROW, "label": "1"}) == "label is '1', not true or false"
    assert [parse({**ROW, "label": label}, typeless=True).feedback[0].desirable for label in ("True", "1", "0.0")] == [
        True, True, False,
    ]  # fmt: skip


def test_columns_of_ones_own_inside_records():
    """Paths reach into objects and lists; what stands beside the value there is a column by the same rule."""
    row = {
        "rid": "a7",
        "request": {"messages": [USER], "model": "m"},
        "response": {"choices": [{"message": {"content": "Hello."}}]},
        "thumb": True,
    }
    columns = {"id": "rid", "prompt": "request.messages", "label": "thumb"}
    rules = Rules(columns={**columns, "completion": "response.choices.0.message.content"})
    parsed = parse(row, rules)
    assert parsed == (EXPECTED[:1], ["request.model"], "id 'a7'", None)
    row["request"]["context"] = "x"
    assert problem(row, rules) == "column 'request.context' is not used and may be part of the conversation"
    assert problem({"rid": 1, "request": {"messages": [USER]}, "thumb": True}, rules) == (
        "no 'completion' (data.columns takes it from 'response.choices.0.message.content')"
    )


def test_who_gave_the_feedback():
    """A column that data.columns names, else the `user` of an importer's `origin`; and nobody where neither says so."""
    row = {"prompt": "Hi.", "completion": "Hello.", "label": True}
    assert parse(row).user is None
    assert parse({**row, "origin": {"source": "x", "user": "3f"}}).user == "3f"
    own = Rules(columns={"user": "who.id"})
    assert parse({**row, "who": {"id": 7}, "origin": {"user": "3f"}}, own).user == "7"
    assert parse({**row, "who": {"id": None}}, own).user is None


def test_a_column_that_another_replaces_is_not_forgotten():
    """Where data.columns takes the prompt from elsewhere, the data's own prompt must be ignored by name."""
    rules = Rules(columns={"prompt": "question"})
    row = {**ROW, "prompt": "Be kind.", "question": "Hi"}
    assert problem(row, rules) == ('column "prompt (the data\'s own)" is not used and may be part of the conversation')


@pytest.mark.parametrize(
    "beside",
    [{"conversations": None}, {"chosen": None, "rejected": None}, {"kto_tag": None}, {"output": None}, {"messages": None}],
)  # fmt: skip
def test_columns_that_are_null_make_no_layout(beside):
    """Tables that were put together have every column in every row."""
    assert parse({**ROW, **beside}).feedback == EXPECTED[:1]
