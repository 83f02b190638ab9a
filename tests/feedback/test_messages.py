"""Every way in which a conversation stands in a column."""

import json

import pytest

from kto_release.feedback.columns import Rules
from kto_release.feedback.layouts import parse
from kto_release.feedback.rows import RowProblem

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12"}


def only(row, rules=None):
    (found,) = parse(row, rules).feedback
    return found


def problem(row, rules=None):
    with pytest.raises(RowProblem) as caught:
        parse(row, rules)
    return str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": json.dumps([USER, ANSWER])},
        {"prompt": json.dumps([USER]), "completion": json.dumps([USER, ANSWER])},
        {"prompt": "Hi", "completion": json.dumps(ANSWER)},
        {"completion": "\n\nHuman: Hi\n\nAssistant: Hello."},
        {"completion": "Human: Hi\nAssistant: Hello."},
        {"completion": "### User: Hi\n### Assistant: Hello."},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": "Hello."},
        {"messages": [{"role": "User", "content": "Hi"}, {"role": "Assistant", "content": "Hello."}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]},
    ],
)
def test_one_conversation_in_many_forms(row):
    """JSON texts, transcripts, capitals and content parts are the same messages."""
    found = only({**row, "label": True})
    assert (found.messages, found.answer) == ([USER, ANSWER][:1], ANSWER)


@pytest.mark.parametrize(
    "text",
    [
        '[{"role": "admin", "content": "x"}]',
        '{"role": 3}',
        "[1, 2]",
        "Assistant: x",
        "A line.\n\nHuman: x\n\nAssistant: y",
    ],
)
def test_what_only_looks_like_messages_is_text(text):
    """An answer that is JSON of another kind, or quotes a conversation, is trained as it stands."""
    assert only({"prompt": "Hi", "completion": text, "label": True}).completion == text


def test_a_transcript_with_blank_lines_keeps_single_line_ends():
    """HH-RLHF's turns begin behind a blank line; "User:" at the start of a line inside an answer is text."""
    text = "\n\nHuman: Hi\n\nAssistant: Like this:\nUser: a\nAssistant: b"
    assert only({"completion": text, "label": True}).completion == "Like this:\nUser: a\nAssistant: b"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "model", "content": "x"}], "unknown role 'model'"),
        ([USER, USER, ANSWER], "user speaks where it is not their turn"),
        ([USER, CALL, USER, ANSWER], "a call of a tool has no result before user speaks"),
        ([USER, {"role": "assistant", "content": "a\ud83d"}], "a text holds '\\ud83d', half of a character of two"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER],
            "'messages' holds a content part of type 'image_url'; only text is trained on",
        ),
    ],
)
def test_what_is_wrong_with_a_conversation(messages, words):
    """Roles, turns, calls without results, images and broken characters are told before anything is rendered."""
    assert problem({"messages": messages, "label": True}) == words


def test_roles_of_ones_own():
    """data.roles names what another word means."""
    talk = [{"role": "developer", "content": "Be kind."}, USER, {"role": "model", "content": "Hello."}]
    found = only({"messages": talk, "label": True}, Rules(roles={"developer": "system", "model": "assistant"}))
    assert [turn["role"] for turn in found.messages] == ["system", "user"]


def test_calls_and_results_are_kept_as_templates_take_them():
    """Arguments are objects; OpenAI's and ShareGPT's forms are one; tools stand with the prompt."""
    tools = [{"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}]
    found = only({"messages": [USER, CALL, RESULT, ANSWER], "tools": tools, "label": True})
    function = {"name": "clock", "arguments": {"zone": "UTC"}}
    assert found.messages[1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        RESULT,
    ]
    assert found.tools == [{"type": "function", "function": {"description": "", **tools[0]}}]
    spoken = [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": json.dumps(function)},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "Hello."},
    ]
    same = only({"conversations": spoken, "tools": json.dumps(tools), "label": True})
    assert same.messages[1]["tool_calls"] == [{"type": "function", "function": function}]
    assert (same.messages[2], same.tools) == ({"role": "tool", "content": "12"}, found.tools)


def test_an_answer_may_be_a_call_and_not_a_call_with_its_result():
    """The call alone is an answer without text; with a result in it, the way to write it is told."""
    found = only({"prompt": [USER], "completion": [CALL], "label": True})
    assert (found.completion, found.answer["tool_calls"][0]["function"]["name"]) == ("", "clock")
    assert problem({"prompt": [USER], "completion": [CALL, RESULT, ANSWER], "label": True}) == (
        "'completion' holds a call, its result and an answer: results can't be left out of what is trained"
    )


@pytest.mark.parametrize("side", ["<think>\nHm.\n</think>\n\nHello.", [{**ANSWER, "reasoning_content": "Hm."}]])
def test_thoughts_are_kept_stripped_or_refused(side):
    """As text or under a key: stripping is counted, and an error says what to choose."""
    row = {"prompt": "Hi", "completion": side, "label": True}
    kept = only(row).answer
    assert kept in (ANSWER | {"content": side}, ANSWER | {"reasoning_content": "Hm."})
    stripped = parse(row, Rules(reasoning="strip"))
    assert (stripped.feedback[0].answer, stripped.unused) == (ANSWER, ["thoughts (stripped)"])
    assert problem(row, Rules(reasoning="error")).startswith("a message holds thoughts (")
