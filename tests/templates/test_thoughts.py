"""What a model thinks is told apart from what it answers, in every spelling; what only looks like it stays text."""

from pathlib import Path
from typing import Any

import pytest

from kto_release.templates.thoughts import Said, answer_of, without_thoughts

SPOKEN = {
    "Qwen": ("<think>\nHm.\n</think>\n\nYes.", Said("Yes.", "Hm.")),
    "an empty thought": ("<think>\n\n</think>\n\nYes.", Said("Yes.", "")),
    "opened by the prompt": ("Hm.\n</think>\n\nYes.", Said("Yes.", "Hm.")),
    "on one line": ("Hm.</think>Yes.", Said("Yes.", "Hm.")),
    "twice": ("<think>a</think>\n<think>b</think>\nYes.", Said("Yes.", "a\n\nb")),
    "after a greeting": ("Sure!\n<think>a</think>\nYes.", Said("Sure!\n\nYes.", "a")),
    "Magistral": ("[THINK]Hm.[/THINK]Yes.", Said("Yes.", "Hm.")),
    "Seed": ("<seed:think>Hm.</seed:think>Yes.", Said("Yes.", "Hm.")),
    "gpt-oss": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        Said("Yes.", "Hm.<|end|><|start|>assistant"),
    ),
    "with a block of code in it": ("<think>\n```\n</think>\n\nYes.", Said("Yes.", "```")),
    "never closed": ("<think>\nHm, and", Said("", "Hm, and", closed=False)),
    "opened again, never closed": ("<think>a</think><think>b", Said("", "a\n\nb", closed=False)),
}


@pytest.mark.parametrize(("text", "said"), SPOKEN.values(), ids=SPOKEN)
def test_thoughts_are_told_apart(text: str, said: Said) -> None:
    assert without_thoughts(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "Yes.",
        "",
        "  spaces stay \n",
        "Write <think> before, and </think> after it.",
        "The mark `</think>` ends it.",
        "Like this:\n```\n<think>a</think>\n```\nDone.",
        "I think <thinking> is a word.",
    ],
)
def test_what_only_looks_like_thoughts_is_text(text: str) -> None:
    """To the letter."""
    assert without_thoughts(text) == Said(text, None)


def test_what_the_prompt_opened_and_nothing_closed_is_no_answer() -> None:
    assert without_thoughts("Hm, and", opened=True) == Said("", "Hm, and", closed=False)
    assert without_thoughts("<think>a</think>Yes.", opened=True) == Said("Yes.", "<think>a")


def test_marks_are_found_whether_they_are_special_tokens_or_not(tiny_model: Path) -> None:
    """The answer has neither marks nor special tokens; that the prompt opened a thought is seen in its ids."""
    from transformers import AutoTokenizer

    for special in (False, True):
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
        if special:
            tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})

        def ids(text: str, tokenizer: Any = tokenizer) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        assert answer_of(tokenizer, ids("<think>a</think>b"), ids("hi")) == Said("b", "a")
        assert answer_of(tokenizer, ids("a</think>b"), ids("hi\n<think>\n")) == Said("b", "a")
        assert answer_of(tokenizer, ids("a"), ids("hi<think>")) == Said("", "a", closed=False)
        assert answer_of(tokenizer, [*ids("a"), tokenizer.eos_token_id], ids("hi")) == Said("a", None)
