"""Tools, calls, results and thoughts: rendered where the template prints them, told where it does not."""

from typing import Any

import pytest

from kto_release.templates import Conversation, make_template, render_feedback, set_template
from kto_release.templates.cutting import EMPTY_THOUGHT, PAST_THOUGHT, THOUGHTLESS
from kto_release.templates.prints import UNPRINTED, Prints, prints

USER = {"role": "user", "content": "When?"}
TOOLS = [{"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}}]
CALL = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": [{"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}],
}
RESULT = {"role": "tool", "content": "12"}
NOON = {"role": "assistant", "content": "Noon."}
CHAT = """{% if tools %}TOOLS {{ tools | tojson }}{{ eos_token }}{% endif %}{% for m in messages %}{{ m['role'] }}:
{% if m['reasoning_content'] is defined and loop.last %}<t>{{ m['reasoning_content'] }}</t>{% endif %}{{ m['content'] }}
{%- for call in m['tool_calls'] or [] %}CALL {{ call['function']['name'] }} {{ call['function']['arguments'] | tojson }}
{%- endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:
{% endif %}"""
PLAIN = """{% for m in messages %}{{ m['role'] }}:
{{ m['content'] }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:
{% endif %}"""
THINKING = """{% for m in messages %}{{ m['role'] }}:
{% if m['role'] == 'assistant' and '</think>' in m['content'] %}{% if loop.last %}<think>
{{ m['content'].split('</think>')[0].split('<think>')[-1].strip() }}
</think>

{% endif %}{{ m['content'].split('</think>')[-1].strip() }}{% elif m['role'] == 'assistant' and loop.last %}<think>

</think>

{{ m['content'] }}{% else %}{{ m['content'] }}{% endif %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:
<think>
{% endif %}"""
FORGETFUL = PLAIN.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}")


@pytest.fixture
def with_template(tiny: Any) -> Any:
    def put(source: str) -> Any:
        set_template(tiny, make_template("own", source))
        return tiny

    return put


def shown(tokenizer: Any, *row: Any) -> tuple[str, str]:
    [found] = render_feedback(tokenizer, [Conversation(*row)])
    assert found.problem is None
    return tokenizer.decode(found.prompt_ids), tokenizer.decode(found.completion_ids)


def test_what_a_template_prints_is_found_by_marks(with_template: Any) -> None:
    """A template that loops over texts alone prints nothing else."""
    assert prints(with_template(CHAT)) == Prints(tools=True, calls=True, results=True, reasoning=True, think=False)
    assert prints(with_template(PLAIN)) == Prints(tools=False, calls=False, results=True, reasoning=False, think=False)


def test_tools_and_results_stand_in_the_prompt_and_a_call_is_an_answer(with_template: Any) -> None:
    """The answer is the text with its call and the end of the turn."""
    tokenizer = with_template(CHAT)
    eos = tokenizer.eos_token
    prompt, answer = shown(tokenizer, [USER], CALL, TOOLS)
    assert prompt.endswith(f"}}]{eos}user:\nWhen?{eos}assistant:\n")
    assert answer == f'Let me see.CALL clock {{"zone": "UTC"}}{eos}'
    prompt, answer = shown(tokenizer, [USER, CALL, RESULT], NOON, TOOLS)
    assert prompt.endswith(f'CALL clock {{"zone": "UTC"}}{eos}tool:\n12{eos}assistant:\n')
    assert answer == f"Noon.{eos}"


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (([USER], NOON, TOOLS), "tools"),
        (([USER], CALL), "calls"),
        (([USER, CALL, RESULT], NOON), "calls"),
        (([USER], {**NOON, "reasoning_content": "Hm."}), "reasoning"),
    ],
)
def test_what_is_not_printed_is_not_trained_on(with_template: Any, row: Any, name: str) -> None:
    """The row says what would be lost; others stay."""
    tokenizer = with_template(PLAIN)
    found = render_feedback(tokenizer, [Conversation(*row), ([USER], "Noon.")])
    assert [each.problem for each in found] == [UNPRINTED[name], None]
    assert found[0].completion_ids is None


def test_prompts_with_other_tools_are_other_prompts(with_template: Any) -> None:
    """One question with and without tools, in one call."""
    tokenizer = with_template(CHAT)
    one, other = render_feedback(tokenizer, [Conversation([USER], NOON, TOOLS), Conversation([USER], NOON)])
    assert tokenizer.decode(one.prompt_ids).startswith("TOOLS")
    assert tokenizer.decode(other.prompt_ids).startswith("user:")


@pytest.mark.parametrize(
    "answer", [{**NOON, "content": "<think>\nHm.\n</think>\n\nNoon."}, {**NOON, "reasoning_content": "Hm."}]
)
def test_thoughts_behind_a_prompt_that_opens_them(with_template: Any, answer: Any) -> None:
    """As text or under a key: the thought is trained, and its opening is the prompt's."""
    tokenizer = with_template(THINKING)
    prompt, completion = shown(tokenizer, [USER], answer)
    assert prompt.endswith("assistant:\n<think>\n")
    assert completion == f"Hm.\n</think>\n\nNoon.{tokenizer.eos_token}"


def test_an_empty_thought_and_past_thoughts_are_noted(with_template: Any) -> None:
    """They are trained as the template has it, and counted."""
    tokenizer = with_template(THINKING)
    past = [USER, {**NOON, "content": "<think>\nOld.\n</think>\n\nNoon."}, USER]
    thought = {**NOON, "content": "<think>\nHm.\n</think>\n\nNoon."}
    found = render_feedback(tokenizer, [([USER], "Noon."), Conversation(past, thought), Conversation([USER], thought)])
    assert [each.note for each in found] == [EMPTY_THOUGHT, PAST_THOUGHT, None]


def test_thoughts_that_a_template_cuts_away_are_told(with_template: Any) -> None:
    """Half of what people liked is not what they liked."""
    tokenizer = with_template(FORGETFUL)
    thought = {**NOON, "content": "<think>\nHm.\n</think>\n\nNoon."}
    assert [each.problem for each in render_feedback(tokenizer, [Conversation([USER], thought)])] == [THOUGHTLESS]


def test_a_template_s_own_words_say_why_it_refuses(with_template: Any) -> None:
    """They travel with the row."""
    tokenizer = with_template("{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + PLAIN)
    [found] = render_feedback(tokenizer, [([USER, NOON, USER], "Noon.")])
    assert found.detail == "the chat template says: one turn only"
