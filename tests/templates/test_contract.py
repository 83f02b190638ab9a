"""The template contract: the built-in templates keep it with real tokenizers, and each broken rule is found."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from kto_release.errors import ModelError
from kto_release.templates import BUILT_IN, load_template, make_template
from kto_release.templates.contract import check_contract, findings, system_message

# For the tiny tokenizer: BOS <s> is 1, EOS </s> is 2, and it adds neither by itself.
GOOD = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ANSWER = "{{ m['content'] + eos_token }}"
PROMPT = "{{ '<|assistant|>\n' }}"
BROKEN = {
    "BOS twice at the start": ("{{ bos_token }}", "{{ bos_token + bos_token }}", {"bos"}),
    "BOS again inside a turn": ("{{ '<|' + m", "{{ '<|' + bos_token + m", {"bos", "prefix"}),
    "EOS behind the prompt": (PROMPT, "{{ '<|assistant|>\n' + eos_token }}", {"no eos", "prefix"}),
    "another generation prompt": (PROMPT, "{{ '<|bot|>\n' }}", {"prefix"}),
    "an answer in capitals": (ANSWER, "{{ m['content'] | upper + eos_token }}", {"prefix"}),
    "no end-of-turn token": (ANSWER, "{{ m['content'] }}", {"end", "mask"}),
    "EOS before the answer too": (ANSWER, "{{ eos_token + m['content'] + eos_token }}", {"end"}),
    "a mask without the end-of-turn token": (
        ANSWER + "{% endgeneration %}",
        "{{ m['content'] }}{% endgeneration %}{{ eos_token }}",
        {"mask"},
    ),
    "a mask with a line end behind": (ANSWER, "{{ m['content'] + eos_token + '\n' }}", {"mask"}),
    "a mask of what the user says": (
        "{% else %}{{ m['content'] }}{% endif %}",
        "{% else %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endif %}",
        {"mask"},
    ),
}


@pytest.mark.parametrize("name", ["tulu_v2", "mistral", "zephyr"])
def test_built_in_templates_keep_the_contract(name: str, tokenizer: Any) -> None:
    """tulu_v2, mistral and zephyr keep every rule with each kind of tokenizer."""
    template = load_template(name, tokenizer)
    assert template.marked
    assert findings(tokenizer, template, [tokenizer.eos_token_id]) == []


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in ("chatml", "llama3")])
def test_built_in_templates_keep_the_contract_where_bos_is_eos(name: str, tiny: Any) -> None:
    """OLMo-2, Pythia, GPT-2: an earlier answer ends with the token that stands at the start; two at the start are an
    error there too."""
    tiny.bos_token = tiny.eos_token
    template = load_template(name, tiny)
    check_contract(tiny, template, [tiny.eos_token_id])
    twice = make_template("twice", "{{ bos_token }}" * 2 + template.source)
    assert "bos" in {finding.rule for finding in findings(tiny, twice, [tiny.eos_token_id])}


def test_chatml_keeps_the_contract_where_its_marker_is_a_token(smollm2: Path) -> None:
    """ChatML and SmolLM2's own template keep it with SmolLM2, whose BOS is ChatML's turn marker."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for name in ("chatml", "base"):
        assert findings(tokenizer, load_template(name, tokenizer), [2]) == []


def test_bos_before_a_turn_marker_that_is_bos_breaks_it(smollm2: Path) -> None:
    """ChatML behind a BOS of its own starts with two of them where BOS is ChatML's marker."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    doubled = load_template("chatml", tokenizer).source.replace("{{ '' }}", "{{ bos_token }}", 1)
    first = findings(tokenizer, make_template("doubled", doubled), [2])[0]
    assert first.rule == "bos"
    assert first.problem.startswith("more than one BOS (1): [1, 1, 4093, 198, ")


def test_llama3_keeps_the_contract_where_its_markers_are_tokens(tiny: Any) -> None:
    """llama3 keeps it with a tokenizer that knows its three markers."""
    tiny.add_special_tokens({"extra_special_tokens": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]})
    template = load_template("llama3", tiny)
    assert findings(tiny, template, [tiny.convert_tokens_to_ids("<|eot_id|>")]) == []


def test_a_turn_marker_that_is_no_token_breaks_it(mistral: Any) -> None:
    """ChatML with Mistral's tokenizer, which has no <|im_end|>: its answers would never end; the ids are shown."""
    with pytest.raises(ModelError) as caught:
        check_contract(mistral, load_template("chatml", mistral), [2])
    lines = caught.value.problem.splitlines()
    assert lines[0] == "the chat template 'chatml' does not keep its contract with this tokenizer:"
    assert lines[1] == (
        "  - end: one turn: the answer does not end with a token of generation_config.eos_token_id [2]: "
        "[3916, 278, 26364, 28766, 321, 28730, 416, 28766, 28767, 13] = "
        "'Par' 'is' '.<' '|' 'im' '_' 'end' '|' '>' '<0x0A>' (and in 3 more sample conversations)"
    )


def test_the_good_template_is_good(tiny: Any) -> None:
    """What the broken ones below are made from breaks nothing, with and without marks."""
    assert findings(tiny, make_template("good", GOOD), [2]) == []
    unmarked = GOOD.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert findings(tiny, make_template("good", unmarked), [2]) == []


@pytest.mark.parametrize(("old", "new", "rules"), BROKEN.values(), ids=BROKEN)
def test_each_broken_rule_is_found(old: str, new: str, rules: set[str], tiny: Any) -> None:
    """A template that breaks a rule is reported under exactly this rule (and those that it implies)."""
    assert GOOD.count(old) == 1
    found = findings(tiny, make_template("broken", GOOD.replace(old, new)), [2])
    assert {finding.rule for finding in found} == rules


def test_generation_that_stops_elsewhere_breaks_it(tiny: Any) -> None:
    """Where generation_config names another EOS than the template prints, an answer would never end."""
    found = findings(tiny, make_template("good", GOOD), [3])
    assert {finding.rule for finding in found} == {"end"}


def test_a_prompt_must_not_end_where_generation_stops(tiny: Any) -> None:
    """The prompt's last token must be none that generation stops at, though it be not the tokenizer's EOS."""
    last = tiny("<|assistant|>\n")["input_ids"][-1]
    assert "no eos" in {finding.rule for finding in findings(tiny, make_template("good", GOOD), [2, last])}


def test_a_head_that_does_not_fit_mistral_is_found(mistral_folders: dict[str, Path]) -> None:
    """BOS without the space gives Mistral other ids than its tokenizer gives the bare text: both are shown."""
    tokenizer = AutoTokenizer.from_pretrained(mistral_folders["mistral-new"])
    fitted = load_template("tulu_v2", tokenizer)
    wrong = make_template("wrong", fitted.source.replace("{{ bos_token + ' ' }}", "{{ bos_token }}"))
    [first, *_] = findings(tokenizer, wrong, [2])
    assert first == (
        "roads",
        "one turn",
        (
            "the bare text, to which the tokenizer adds BOS, gives other ids than training: from position 1: "
            "[1, 28789, 28766, 1838, 28766, 28767, 13, 3195] = '<s>' '<' '|' 'user' '|' '>' '<0x0A>' 'What' against "
            "[1, 523, 28766, 1838, 28766, 28767, 13, 3195] = '<s>' '▁<' '|' 'user' '|' '>' '<0x0A>' 'What'"
        ),
    )


def test_a_template_without_bos_is_found(mistral: Any) -> None:
    """Where the tokenizer adds BOS by itself the model uses one, and a template that prints none breaks the rule."""
    template = load_template("tulu_v2", mistral)
    head = template.source.splitlines()[0]
    found = findings(mistral, make_template("none", template.source.replace(head, "{{ '' }}", 1)), [2])
    assert {"bos", "roads"} <= {finding.rule for finding in found}


def test_a_tokenizer_that_adds_eos_is_found(mistral_folders: dict[str, Path]) -> None:
    """A tokenizer that puts EOS behind every text would end the seed card's prompt with it."""
    tokenizer = AutoTokenizer.from_pretrained(mistral_folders["mistral"], add_eos_token=True)
    assert tokenizer("a")["input_ids"][-1] == 2
    found = findings(tokenizer, load_template("tulu_v2", tokenizer), [2])
    assert {finding.rule for finding in found} == {"roads"}


def test_the_tokenizer_keeps_its_own_template(tiny: Any) -> None:
    """Checking a template does not put it into the tokenizer, whether it passes or fails."""
    own = tiny.chat_template
    check_contract(tiny, make_template("good", GOOD), [2])
    with pytest.raises(ModelError):
        check_contract(tiny, make_template("good", GOOD), [3])
    assert tiny.chat_template == own


def test_what_a_system_message_does_is_told(tiny: Any, smollm2: Path) -> None:
    """Supported, refused or ignored: told apart by rendering one."""
    assert system_message(tiny) == "supported"
    assert system_message(AutoTokenizer.from_pretrained(smollm2)) == "supported"
    tiny.chat_template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"
    assert system_message(tiny) == "ignored"
    tiny.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    assert system_message(tiny) == "refused"


def test_a_template_that_refuses_system_messages_can_keep_the_contract(tiny: Any) -> None:
    """A conversation that the template refuses is no finding; the others are checked."""
    refusing = GOOD.replace(
        "{{ '<|' + m", "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ '<|' + m"
    )
    assert findings(tiny, make_template("refusing", refusing), [2]) == []
    assert findings(tiny, make_template("refusing", refusing), [3]) != []
