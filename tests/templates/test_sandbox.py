"""Templates from elsewhere: rendered in a child process first, and refused if they break its limits or the sandbox."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from kto_release.errors import ModelError
from kto_release.templates import load_template, render, render_feedback, render_text, sandbox
from kto_release.templates.moment import moment_of, set_moment

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
REFUSED = {
    "memory": ("{{ 'x' * (2 * 10**9) }}", "needs more than 1024 MiB of memory"),
    "classes": (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "breaks out of the sandbox: access to attribute '__class__' of 'str' object is unsafe.",
    ),
    "a large range": ("{% for a in range(10**9) %}{% endfor %}", "fails: OverflowError: Range too big. The sandbox"),
    "an import": ("{% import 'os' as os %}", "fails: TypeError: no loader for this environment specified"),
    "changed messages": (
        "{{ messages.append(1) }}",
        "breaks out of the sandbox: access to attribute 'append' of 'list' object is unsafe.",
    ),
    "syntax": ("{% for m in messages %}\n{{ m['content' }}{% endfor %}", "line 2: unexpected '}', expected ']'"),
    "an unknown tag": ("a\nb\n{% exec %}", "line 3: Encountered unknown tag 'exec'."),
    "no conversation will do": ("{{ raise_exception('not today') }}", "refuses every conversation: not today"),
}


@pytest.mark.parametrize(("source", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_harmful_or_broken_template_is_refused(source: str, problem: str, tiny: Any, tmp_path: Path) -> None:
    """Memory, the sandbox's borders, syntax: one clear error from the child; this process never renders it."""
    path = tmp_path / "foreign.jinja"
    path.write_text(source)
    with pytest.raises(ModelError) as caught:
        load_template(str(path), tiny)
    assert caught.value.problem.startswith(f"the chat template {problem}")
    assert caught.value.todo == "take another template: model.template"


BOMB = "{{ 'x' * (2 * 10**9) }}"
HIDDEN = {
    "where there are tools": "{% if tools %}" + BOMB + "{% endif %}",
    "where tools are defined": "{% if tools is defined %}" + BOMB + "{% endif %}",
    "where there are documents": "{% if documents %}" + BOMB + "{% endif %}",
    "in a whole conversation": "{% if not add_generation_prompt %}" + BOMB + "{% endif %}",
}


@pytest.mark.parametrize("bomb", HIDDEN.values(), ids=HIDDEN)
def test_a_bomb_that_waits_is_found_when_the_template_is_loaded(bomb: str, tiny: Any, tmp_path: Path) -> None:
    """The child renders prompts and whole conversations, with and without tools and documents."""
    path = tmp_path / "foreign.jinja"
    path.write_text(bomb + tiny.chat_template)
    with pytest.raises(ModelError, match=r"the chat template needs more than 1024 MiB of memory"):
        load_template(str(path), tiny)


def test_a_bomb_for_one_conversation_goes_off_in_the_child(tiny: Any) -> None:
    """What no sample shows is met with the conversation itself, and the next one is rendered as before."""
    good = tiny.chat_template
    tiny.chat_template = "{% if 'boom' in messages[0]['content'] %}" + BOMB + "{% endif %}" + good
    rows = [([{"role": "user", "content": text}], "a") for text in ("Why?", "boom")]
    with pytest.raises(ModelError, match=r"the chat template needs more than 1024 MiB of memory"):
        render_feedback(tiny, rows)
    assert render_feedback(tiny, rows[:1])[0].problem is None


def test_a_template_may_print_only_so_much(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little by little is too much too: the child stops where a conversation grows beyond any use."""
    tiny.chat_template += (
        "{% if 'many' in messages[0]['content'] %}{% for i in range(9000) %}{{ i }}{% endfor %}{% endif %}"
    )
    monkeypatch.setattr(sandbox, "LONGEST", 5000)
    with pytest.raises(ModelError, match=r"the chat template prints more than 5,000 characters of one conversation"):
        render(tiny, [{"role": "user", "content": "many"}], prompt=True)


CHANGING = {
    "random": "{{ [1, 2] | random }}",
    "lipsum": "{{ lipsum() }}",
}


@pytest.mark.parametrize("source", CHANGING.values(), ids=CHANGING)
def test_a_template_that_draws_at_random_is_refused(source: str, tiny: Any, tmp_path: Path) -> None:
    """A prompt of which nobody can say what its ids are is no prompt to train on."""
    path = tmp_path / "foreign.jinja"
    path.write_text(source + tiny.chat_template)
    with pytest.raises(ModelError, match=r"draws at random, so that a prompt would be another one each time"):
        load_template(str(path), tiny)


def test_a_template_that_prints_where_an_object_lies_is_refused(tiny: Any, tmp_path: Path) -> None:
    """An address in memory differs from one time to the next without any draw."""
    path = tmp_path / "foreign.jinja"
    path.write_text("{{ joiner() }}" + tiny.chat_template)
    with pytest.raises(ModelError, match=r"renders the same conversation differently each time"):
        load_template(str(path), tiny)


def test_what_templates_ask_of_tools_and_documents_is_as_in_transformers(tiny: Any, tmp_path: Path) -> None:
    """Without tools both are None and defined; a good template may look at either."""
    head = "{% if tools is not none %}T{{ tools | tojson }}{% endif %}{% if documents is none %}D{% endif %}"
    source = head + tiny.chat_template
    path = tmp_path / "foreign.jinja"
    path.write_text(source)
    tiny.chat_template = load_template(str(path), tiny).source
    messages = [{"role": "user", "content": "Why?"}]
    expected = tiny.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert render_text(tiny, messages, prompt=True) == expected
    assert expected.startswith("D")


def test_a_date_is_printed_as_of_the_recorded_moment(tiny: Any, tmp_path: Path) -> None:
    """Whatever the day is, and again by the tokenizer that was saved with its moment."""
    tiny.chat_template = "{{ strftime_now('%d %b %Y') }}" + tiny.chat_template
    messages = [{"role": "user", "content": "Why?"}]
    set_moment(tiny, "2001-02-03T04:05:06")
    text = render_text(tiny, messages, prompt=True)
    assert text.startswith("03 Feb 2001")
    tiny.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert moment_of(again) == "2001-02-03T04:05:06"
    assert render_text(again, messages, prompt=True) == text


def test_a_template_that_never_ends_is_refused(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested loops pass the sandbox, and are ended by the child's limit of CPU time."""
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    path = tmp_path / "loops.jinja"
    path.write_text(LOOPS)
    with pytest.raises(ModelError) as caught:
        load_template(str(path), tiny)
    assert caught.value.problem == "the chat template takes longer than 1 s of a processor"


def test_a_models_own_template_is_tried_too(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model's own template is foreign: it is refused when it is loaded, and when it is rendered unloaded."""
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    tiny.chat_template = LOOPS + "{{ 'own' }}"
    for use in (
        lambda: load_template("base", tiny),
        lambda: render(tiny, [{"role": "user", "content": "Why?"}], prompt=True),
    ):
        with pytest.raises(ModelError, match="takes longer than 1 s of a processor"):
            use()


def test_the_child_gets_no_secret(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process's environment the program that renders sees where programs and libraries are, and nothing else."""
    seen, python = tmp_path / "seen.json", tmp_path / "python"
    python.write_text(
        f"#!{sys.executable} -I\nimport json, os, sys\njson.dump(dict(os.environ), open({str(seen)!r}, 'w'))\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    sandbox.end_child()
    path = tmp_path / "plain.jinja"
    path.write_text("{% for m in messages %}{{ m['content'] }} for the child alone{% endfor %}")
    load_template(str(path), tiny)
    sandbox.end_child()
    assert json.loads(seen.read_text()).keys() - {"LC_CTYPE"} <= {"PATH", "LD_LIBRARY_PATH"}  # Python's own LC_CTYPE


def test_real_templates_use_what_transformers_offers(tiny: Any, tmp_path: Path) -> None:
    """tojson, loop controls, strftime_now, marks, and raise_exception where it is not met, are no reason to refuse."""
    source = (
        "{% if not messages %}{{ raise_exception('none') }}{% endif %}{{ strftime_now('%Y') }}{{ messages | tojson }}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}a{% endgeneration %}{% endfor %}"
    )
    path = tmp_path / "rich.jinja"
    path.write_text(source)
    assert load_template(str(path), tiny).source == source
