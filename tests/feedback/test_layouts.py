"""Every layout of feedback that is read, and what is said of a row that can't be."""

import pytest

from kto_release.feedback.columns import Rules
from kto_release.feedback.layouts import parse
from kto_release.feedback.rows import Feedback, RowProblem

USER = {"role": "user", "content": "Hi"}
LIKED = {"role": "assistant", "content": "Hello."}
DISLIKED = {"role": "assistant", "content": "As an AI"}
EXPECTED = [Feedback((("user", "Hi"),), "Hello.", True), Feedback((("user", "Hi"),), "As an AI", False)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "As an AI"},
        {"prompt": [USER], "chosen": "Hello.", "rejected": "As an AI"},
        {"prompt": [USER], "chosen": [LIKED], "rejected": [DISLIKED]},
        {"prompt": "Hi", "prompt_id": "7", "chosen": [USER, LIKED], "rejected": [USER, DISLIKED]},
        {"chosen": [USER, LIKED], "rejected": [USER, DISLIKED]},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello."},
            "rejected": {"from": "gpt", "value": "As an AI"},
        },
    ],
)
def test_pairs_in_every_layout(row):
    """Strings, message lists, Snorkel's repeated prompt, an implicit prompt, and ShareGPT's turns mean the same pair."""
    assert parse(row).feedback == EXPECTED


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Hello.", "label": True},
        {"prompt": [USER], "completion": [LIKED], "label": 1},
        {"prompt": [USER], "output": [LIKED], "label": 1, "type": "binary_feedback"},
        {"messages": [USER, LIKED], "label": True},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "kto_tag": True},
    ],
)
def test_labelled_rows_in_every_layout(row):
    """TRL's, HALOs', a conversation with a label, and ShareGPT's kto_tag mean the same feedback."""
    assert parse(row).feedback == EXPECTED[:1]


def test_scores_are_cut_at_the_threshold():
    """A score equal to the threshold is desirable."""
    row = {"prompt": "Hi", "completions": ["Hello.", "As an AI"], "scores": [7, 6.9]}
    assert parse(row, Rules(threshold=7)).feedback == EXPECTED


def test_turns_and_system_messages_are_kept():
    """A conversation keeps its earlier turns and its system message."""
    prompt = [{"role": "system", "content": "Be brief."}, USER, LIKED, {"role": "user", "content": "Bye"}]
    (found,) = parse({"prompt": prompt, "completion": "Bye.", "label": False}).feedback
    assert found.messages == prompt
    assert not found.desirable


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"completion": "x", "label": True}, "no prompt"),
        ({"prompt": None, "completion": "x", "label": True}, "no prompt"),
        ({"prompt": " ", "completion": "x", "label": True}, "the prompt is empty"),
        ({"prompt": [], "completion": "x", "label": True}, "no prompt"),
        ({"prompt": "Hi", "completion": " \n", "label": False}, "the undesirable completion is empty"),
        ({"prompt": "Hi", "chosen": "", "rejected": "x"}, "the desirable completion is empty"),
        ({"prompt": "Hi", "completion": None, "label": True}, "no 'completion'"),
        ({"prompt": "Hi", "completion": "x", "label": "true"}, "label is 'true', not true or false"),
        ({"prompt": "Hi", "completion": "x", "label": 0.7}, "label is 0.7, not true or false"),
        ({"prompt": "Hi", "completion": "x", "label": None}, "label is None, not true or false"),
        ({"prompt": "Hi", "label": True}, "no 'completion'"),
        ({"prompt": [LIKED], "completion": "x", "label": True}, "the prompt ends with a message of 'assistant', not of the user"),
        ({"prompt": "Ho", "chosen": [USER, LIKED], "rejected": [USER, DISLIKED]}, "'chosen' repeats another prompt than 'prompt'"),
        ({"chosen": [USER, LIKED], "rejected": [{**USER, "content": "Ho"}, DISLIKED]}, "chosen and rejected answer different prompts"),
        ({"prompt": "Hi", "completions": ["x"], "scores": [1]}, "scores need data.score_threshold"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row(row, problem):
    """Each fault has its own words, and a truthy label is no label."""
    with pytest.raises(RowProblem) as caught:
        parse(row)
    assert str(caught.value) == problem


def test_unknown_columns_name_the_layouts():
    """A row of another task is refused with the layouts that are known."""
    with pytest.raises(RowProblem, match="^columns question, text make no known layout; expected prompt, chosen"):
        parse({"question": "?", "text": "x"})
