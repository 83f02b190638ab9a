"""Templates from elsewhere: rendered in a child process first, and refused if they break its limits or the sandbox."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kto_release.errors import ModelError
from kto_release.templates import load_template, render, sandbox

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
    path = tmp_path / "plain.jinja"
    path.write_text("{% for m in messages %}{{ m['content'] }} for the child alone{% endfor %}")
    load_template(str(path), tiny)
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
