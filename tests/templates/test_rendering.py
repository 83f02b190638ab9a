"""Messages to token ids: the texts of the built-in templates, and the ids with real tokenizers."""

import re
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer

from kto_release.errors import ModelError
from kto_release.templates import (
    BUILT_IN,
    Rendered,
    adds_bos,
    eos_ids,
    load_template,
    make_template,
    render,
    render_feedback,
    render_text,
    set_template,
)
from kto_release.templates.cutting import CHANGED, MERGED, REFUSED, SPECIAL

CAKE = [
    {"role": "user", "content": "Hi! I'm looking for a cake recipe."},
    {"role": "assistant", "content": "What kind of cake?"},
    {"role": "user", "content": "Chocolate cake."},
]
SEED_CARD = """<|user|>
Hi! I'm looking for a cake recipe.
<|assistant|>
What kind of cake?
<|user|>
Chocolate cake.
<|assistant|>
"""
QUESTION = [{"role": "user", "content": "Why?"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": "And?"},
]
TEXTS = {
    "tulu_v2": "<s><|system|>\nBe brief.\n<|user|>\nWhy?\n<|assistant|>\nSo.</s>\n<|user|>\nAnd?\n<|assistant|>\n",
    "zephyr": "<s><|system|>\nBe brief.</s>\n<|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>\n"
    "<|user|>\nAnd?</s>\n<|assistant|>\n",
    "chatml": "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n",
    "mistral": "<s>[INST] Be brief.\n\nWhy? [/INST] So.</s>[INST] And? [/INST]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
}
BAD_TURNS = {
    "the assistant first": [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why?"}],
    "the user twice": [{"role": "user", "content": "Why?"}, {"role": "user", "content": "Well?"}],
    "a system message later": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "And?"},
    ],
    "another role": [{"role": "tool", "content": "42"}, {"role": "user", "content": "Why?"}],
    "the assistant last": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
}


def put(tokenizer: Any, name: str) -> Any:
    set_template(tokenizer, load_template(name, tokenizer))
    return tokenizer


def test_tulu_v2_renders_the_seed_cards_conversation(tokenizer: Any) -> None:
    """Special tokens aside, the prompt is the seed card's text; it starts with one BOS and has no EOS at its end."""
    put(tokenizer, "tulu_v2")
    text = render_text(tokenizer, CAKE, prompt=True)
    head = f"{tokenizer.bos_token} " if text.startswith(f"{tokenizer.bos_token} ") else tokenizer.bos_token
    assert text.removeprefix(head).replace(tokenizer.eos_token, "") == SEED_CARD
    ids = render(tokenizer, CAKE, prompt=True)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[-1] != tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1  # behind the answer in the conversation, never at the end


def test_the_seed_cards_way_gives_the_same_ids(mistral: Any) -> None:
    """The bare text that the seed card tells people to write, to which Mistral's tokenizer adds BOS, has our ids."""
    put(mistral, "tulu_v2")
    assert adds_bos(mistral)
    assert mistral("<|user|>\nWhy?\n<|assistant|>\n")["input_ids"] == render(mistral, QUESTION, prompt=True)


@pytest.mark.parametrize("name", BUILT_IN)
def test_texts_of_the_built_in_templates(name: str, tiny: Any) -> None:
    """A system message, two questions and an answer, exactly; a system message is rendered by every built-in one."""
    assert render_text(put(tiny, name), TALK, prompt=True) == TEXTS[name]


def test_mistrals_template_gives_mistrals_own_ids(mistral: Any) -> None:
    """The mistral template gives the ids of mistral_common's own tokenizer, for prompts and for whole conversations."""
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    put(mistral, "mistral")
    request = ChatCompletionRequest(messages=CAKE)
    assert render(mistral, CAKE, prompt=True) == MistralTokenizer.v1().encode_chat_completion(request).tokens


def test_the_head_fits_the_tokenizer(tiny: Any, smollm2: Path, mistral_folders: dict[str, Path]) -> None:
    """BOS with a space, without, or none at all: as the tokenizer's own BOS would stand before the text."""
    legacy, new = (AutoTokenizer.from_pretrained(mistral_folders[name]) for name in ("mistral", "mistral-new"))
    small = AutoTokenizer.from_pretrained(smollm2)
    without = AutoTokenizer.from_pretrained(smollm2)
    without.bos_token = None
    heads = {
        (name, kind): load_template(name, tokenizer).source.splitlines()[0]
        for kind, tokenizer in {"tiny": tiny, "smol": small, "none": without, "legacy": legacy, "new": new}.items()
        for name in ("tulu_v2", "chatml")
    }
    plain, spaced, none = "{{ bos_token }}", "{{ bos_token + ' ' }}", "{{ '' }}"
    assert heads == {
        ("tulu_v2", "tiny"): plain,
        ("chatml", "tiny"): plain,
        ("tulu_v2", "smol"): plain,
        ("chatml", "smol"): none,  # SmolLM2's BOS is <|im_start|>, which ChatML starts with anyway
        ("tulu_v2", "none"): none,
        ("chatml", "none"): none,
        ("tulu_v2", "legacy"): plain,
        ("chatml", "legacy"): plain,
        ("tulu_v2", "new"): spaced,
        ("chatml", "new"): spaced,
    }


@pytest.mark.parametrize("messages", BAD_TURNS.values(), ids=BAD_TURNS)
@pytest.mark.parametrize("name", [*BUILT_IN, "base"])
def test_turns_out_of_order_are_refused(name: str, messages: list[dict[str, str]], tiny: Any) -> None:
    """The human speaks first and roles alternate: an error with any template, the built-in ones' own included."""
    put(tiny, name)
    with pytest.raises(ModelError, match="this conversation can't be rendered: ") as caught:
        render(tiny, messages, prompt=True)
    assert caught.value.expected == "a system message or none, then user and assistant in turn, the user first"
    if name != "base":
        with pytest.raises(TemplateError, match="must"):
            tiny.apply_chat_template(messages, add_generation_prompt=True)


def test_messages_without_text_are_refused(tiny: Any) -> None:
    """A content that is no text is an error that shows the message, not the word None in a prompt."""
    put(tiny, "tulu_v2")
    with pytest.raises(ModelError) as caught:
        render(tiny, [{"role": "user", "content": None}], prompt=True)  # type: ignore[dict-item]
    assert caught.value.problem == (
        "this conversation can't be rendered: not a message with role and content, both text: "
        "{'role': 'user', 'content': None}"
    )
    with pytest.raises(ModelError, match="nobody speaks"):
        render(tiny, [], prompt=False)


def test_feedback_is_split_where_the_prompt_ends(tokenizer: Any) -> None:
    """Prompt and completion are the prompt's own ids and the rest of the whole's, to the end-of-turn token."""
    put(tokenizer, "tulu_v2")
    [found] = render_feedback(tokenizer, [(CAKE, "Mix flour and cocoa.")])
    whole = render(tokenizer, [*CAKE, {"role": "assistant", "content": "Mix flour and cocoa."}], prompt=False)
    assert found.prompt_ids == render(tokenizer, CAKE, prompt=True)
    assert found.completion_ids is not None
    assert [*found.prompt_ids, *found.completion_ids] == whole[: len(found.prompt_ids) + len(found.completion_ids)]
    assert found.completion_ids[-1] == tokenizer.eos_token_id
    assert found.completion_ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(found.completion_ids[:-1]) == "Mix flour and cocoa."
    assert found.problem is None


def test_the_end_of_turn_token_is_kept_where_it_is_the_pad_token(smollm2: Path) -> None:
    """SmolLM2 pads with its EOS; the answer's own EOS is trained on all the same."""
    tokenizer = put(AutoTokenizer.from_pretrained(smollm2), "chatml")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    [found] = render_feedback(tokenizer, [(QUESTION, "So.")])
    assert found.completion_ids == [*tokenizer("So.")["input_ids"], 2]


def test_an_answer_continues_the_prompts_text(mistral: Any) -> None:
    """With Mistral the answer's first token is the one that follows a line end, not the one that starts a text."""
    put(mistral, "tulu_v2")
    [found] = render_feedback(mistral, [(QUESTION, "What?")])
    assert found.completion_ids == mistral.convert_tokens_to_ids(["What", "?", "</s>"])
    assert mistral("What?", add_special_tokens=False)["input_ids"] == mistral.convert_tokens_to_ids(["▁What", "?"])


def test_rows_that_cannot_be_trained_on_are_marked_one_by_one(smollm2: Path) -> None:
    """A row whose tokens merge with the prompt's, that holds a special token, or is refused, says so; others stay."""
    tokenizer = put(AutoTokenizer.from_pretrained(smollm2), "tulu_v2")
    good = (QUESTION, "So.")
    rows = [
        good,
        (QUESTION, "\n\nSo."),
        (QUESTION, "So.<|im_end|> And."),
        ([{"role": "assistant", "content": "Hello."}], "So."),
        good,
    ]
    found = render_feedback(tokenizer, rows)
    assert [row.problem for row in found] == [None, MERGED, SPECIAL, REFUSED, None]
    assert [row.completion_ids is None for row in found] == [False, True, True, True, False]
    assert found[0] == found[4] == render_feedback(tokenizer, [good])[0]
    assert found[1].prompt_ids == found[0].prompt_ids


def test_a_template_that_changes_the_answer_is_noticed(tiny: Any) -> None:
    """An answer that the template rewrites is not what people liked: it is marked, not trained on."""
    set_template(
        tiny,
        make_template(
            "loud",
            "{% for message in messages %}{{ message['content'] | upper }}{{ eos_token }}{% endfor %}",
        ),
    )
    assert [row.problem for row in render_feedback(tiny, [(QUESTION, "so"), (QUESTION, "42")])] == [CHANGED, None]


def test_no_rows_are_no_ids(tiny: Any) -> None:
    """An empty batch gives an empty list."""
    assert render_feedback(tiny, []) == []


def test_what_follows_the_end_of_turn_is_left_out(tiny: Any) -> None:
    """A template that prints a line end, or more, behind the end-of-turn token does not lengthen the completion."""
    source = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}\n{{ bos_token }}{% endfor %}"
    set_template(tiny, make_template("long", source))
    [found] = render_feedback(tiny, [(QUESTION, "So.")])
    assert found == Rendered(
        tiny("Why?</s>\n<s>")["input_ids"],
        tiny("So.</s>")["input_ids"],
    )


def test_templates_come_from_files_with_lf(tiny: Any, tmp_path: Path) -> None:
    """A file's line ends become LF, and its name and digest are the template's."""
    path = tmp_path / "mine.jinja"
    path.write_bytes(b"{% for m in messages %}{{ m['content'] }}\r\n{% endfor %}")
    template = load_template(str(path), tiny)
    assert template == make_template("mine", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    assert re.fullmatch("[0-9a-f]{64}", template.sha256)
    assert not template.marked


def test_a_models_own_template_gets_lf(tiny: Any) -> None:
    """A template that came with other line ends in tokenizer_config.json is used, digested and published with LF."""
    tiny.chat_template = "{% for m in messages %}{{ m['content'] }}\r\n{% endfor %}"
    assert load_template("base", tiny).source == "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def test_base_keeps_the_models_own(smollm2: Path) -> None:
    """`base` is the template that came with the model, byte for byte."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert load_template("base", tokenizer).source == (smollm2 / "chat_template.jinja").read_text()


def test_an_unknown_template_lists_the_choices(tiny: Any) -> None:
    """A name that is neither built in nor a file is an error with the choices."""
    with pytest.raises(ModelError) as caught:
        load_template("tulu", tiny)
    assert str(caught.value) == (
        "no such chat template: 'tulu'\n"
        "  expected: chatml, llama3, mistral, tulu_v2, zephyr, base (the model's own), or a .jinja file"
    )


def test_a_tokenizer_without_a_template_says_what_to_set(tiny: Any) -> None:
    """`base` without a template, and rendering without one, are errors that name the key to set."""
    tiny.chat_template = None
    for use in (lambda: load_template("base", tiny), lambda: render(tiny, QUESTION, prompt=True)):
        with pytest.raises(ModelError) as caught:
            use()
        assert caught.value.problem == "the model's tokenizer has no chat template"
        assert caught.value.expected == (
            "model.template: one of chatml, llama3, mistral, tulu_v2, zephyr, or a .jinja file"
        )


def test_a_template_that_needs_eos_says_so(tiny: Any) -> None:
    """tulu_v2 with a tokenizer that has no EOS token is one clear error, not an answer without an end."""
    tiny.eos_token = None
    with pytest.raises(ModelError, match="and the tokenizer has none"):
        load_template("tulu_v2", tiny)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [7, 3]}, {"eos_token_id": 1}, [3, 7]),
        ({"eos_token_id": 2}, {}, [2]),
        ({}, {"eos_token_id": 5}, [5]),
        (None, {"text_config": {"eos_token_id": 6}}, [6]),
    ],
)
def test_where_generation_stops(
    generation: dict[str, Any] | None, config: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    """generation_config.json says where an answer ends, else config.json."""
    import json

    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert eos_ids(tmp_path) == expected


def test_a_model_that_never_stops_is_an_error(tmp_path: Path) -> None:
    """Where no file names an EOS token there is an error, not an empty list."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not say at which token an answer ends"):
        eos_ids(tmp_path)
