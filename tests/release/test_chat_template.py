"""The chat template of a release: stripped of marks, written for every reader, proved, and replayed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from real_tokenizers import make_mistral_tokenizer
from run_builder import build_run
from transformers import AutoTokenizer

from kto_release.errors import ModelError, ReleaseError
from kto_release.records import IterationRecord
from kto_release.release.chat_template import publishable, published_template, replay, write_template
from kto_release.templates import BUILT_IN, load_template, make_template, render, save_tokenizer, set_template

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": "And?"},
]
FILES = ("chat_template.jinja", "chat_template.training.jinja", "template_test.json")


def put(tokenizer: Any, name: str) -> Any:
    set_template(tokenizer, load_template(name, tokenizer))
    return tokenizer


@pytest.fixture(scope="module")
def released(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny tokenizer and tulu_v2, as a release has them."""
    folder = tmp_path_factory.mktemp("released") / "bundle"
    tokenizer = put(AutoTokenizer.from_pretrained(tiny_model), "tulu_v2")
    save_tokenizer(tokenizer, folder)
    write_template(folder, tokenizer, load_template("base", tokenizer), [2])
    return folder


@pytest.fixture
def bundle(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IterationRecord]:
    """The model folder of a finished iteration, and its record."""
    run = build_run(tmp_path_factory.mktemp("run"), tiny_model, iterations=1, evaluated=False)
    [record] = run.iteration_records()
    return run.iteration(1) / "model", record


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_published_template_renders_in_readers_without_marks(name: str, tiny_model: Path) -> None:
    """Plain Jinja, which refuses {% generation %}, renders the published twin as transformers the marked one."""
    tokenizer = put(AutoTokenizer.from_pretrained(tiny_model), name)
    source = publishable(tokenizer.chat_template)
    assert "generation %}" not in source
    assert not source.endswith("\n")

    def refuse(message: str) -> None:
        raise ValueError(message)

    for trim in (True, False):  # not every reader trims blocks; every tag of ours trims for itself
        plain = ImmutableSandboxedEnvironment(
            trim_blocks=trim, lstrip_blocks=trim, keep_trailing_newline=not trim, extensions=[loopcontrols]
        )
        text = plain.from_string(source).render(
            messages=TALK, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", raise_exception=refuse
        )
        assert text == tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
            "{% for m in messages %}{% if true %}{{ m.content }}{% endif %}{% endfor %}",
        ),
        (
            "{% for m in messages %}{{ 1 }}\n {%- generation -%}\n {{ m.content }}\n {% endgeneration %}{% endfor %}\n",
            "{% for m in messages %}{{ 1 }}\n {%- if true -%}\n {{ m.content }}\n {% endif %}{% endfor %}",
        ),
        (
            "{%- for m in messages %}\n  {%- generation %}\n  {{- m.content }}\n  {%- endgeneration %}\n{%- endfor %}",
            "{%- for m in messages %}\n  {{- m.content }}\n{%- endfor %}",
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "{% for m in messages %}{{ m.content }}{% endfor %}"),
    ],
    ids=["within a line", "trimming white space", "on lines of their own", "without marks"],
)
def test_marks_vanish_and_white_space_stays(source: str, expected: str) -> None:
    """A tag vanishes with its line where that changes nothing, else becomes a branch that is always taken."""
    assert publishable(source) == expected


def test_a_template_that_needs_its_marks_is_refused() -> None:
    """Where the text without tags would differ (a variable set inside them leaks), nothing is published."""
    source = (
        "{% set n = 1 %}{% for m in messages %}{% generation %}{% set n = 2 %}{{ m.content }}{% endgeneration %}"
        "{{ n }}{% endfor %}"
    )
    with pytest.raises(ModelError) as caught:
        publishable(source)
    assert caught.value.problem == (
        "the chat template can't be published: without its {% generation %} tags it renders differently"
    )


def test_what_is_written(bundle: Path) -> None:
    """The .jinja and tokenizer_config.json hold the same unmarked text with LF, the marked one beside them."""
    source = (bundle / "chat_template.jinja").read_bytes().decode()
    config = json.loads((bundle / "tokenizer_config.json").read_text())
    assert config["chat_template"] == source
    assert "\r" not in source
    assert "generation %}" not in source
    assert make_template("", (bundle / "chat_template.training.jinja").read_text()).marked
    assert not {"is_local", "local_files_only", "name_or_path"} & set(config)
    assert AutoTokenizer.from_pretrained(bundle).chat_template == source


def test_conversations_travel_with_their_ids(bundle: Path) -> None:
    """template_test.json holds conversations, as prompts and whole, with the ids that the loaded tokenizer gives."""
    test = json.loads((bundle / "template_test.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    assert len(test["conversations"]) == 8
    for one in test["conversations"]:
        ids = tokenizer.apply_chat_template(
            one["messages"], add_generation_prompt=one["add_generation_prompt"], return_dict=False
        )
        assert ids == one["ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert (ids[-1] == tokenizer.eos_token_id) is False
    assert replay(bundle) == 8


def test_no_path_of_this_machine_is_written(released: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Absolute paths and the marks of a local folder leave tokenizer_config.json; everything else stays."""
    folder = Path(shutil.copytree(released, tmp_path / "bundle"))
    path = folder / "tokenizer_config.json"
    before = json.loads(path.read_text())
    local = {"is_local": True, "local_files_only": False, "name_or_path": "/home/x/m", "tokenizer_file": "/home/x/t"}
    path.write_text(json.dumps({**before, **local}))
    tokenizer = put(AutoTokenizer.from_pretrained(tiny_model), "tulu_v2")
    write_template(folder, tokenizer, load_template("base", tokenizer), [2])
    assert json.loads(path.read_text()) == before


def test_writing_twice_writes_the_same(bundle: Path, tiny_model: Path) -> None:
    """A second publish gives the same bytes; a template without marks leaves no marked one behind."""
    before = {name: (bundle / name).read_bytes() for name in (*FILES, "tokenizer_config.json")}
    tokenizer = put(AutoTokenizer.from_pretrained(tiny_model), "tulu_v2")
    write_template(bundle, tokenizer, load_template("base", tokenizer), [2])
    assert {name: (bundle / name).read_bytes() for name in before} == before
    write_template(bundle, tokenizer, load_template("base", tokenizer), [2])  # the tokenizer now has the unmarked one
    assert not (bundle / "chat_template.training.jinja").exists()


def test_a_template_that_breaks_the_contract_is_not_written(tiny_model: Path, tmp_path: Path) -> None:
    """Where generation would not stop at the template's end-of-turn token, nothing is written."""
    tokenizer = put(AutoTokenizer.from_pretrained(tiny_model), "tulu_v2")
    save_tokenizer(tokenizer, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ModelError, match=r"eos_token_id \[3\]"):
        write_template(tmp_path, tokenizer, load_template("base", tokenizer), [3])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [True, False])
def test_mistrals_release_reads_back(legacy: bool, tmp_path: Path) -> None:
    """With Mistral's real tokenizer the published ids are those of training, after saving and loading too."""
    tokenizer = AutoTokenizer.from_pretrained(make_mistral_tokenizer(tmp_path / "base", legacy=legacy))
    put(tokenizer, "tulu_v2")
    expected = render(tokenizer, TALK, prompt=True)
    save_tokenizer(tokenizer, tmp_path / "bundle")
    write_template(tmp_path / "bundle", tokenizer, load_template("base", tokenizer), [2])
    assert render(AutoTokenizer.from_pretrained(tmp_path / "bundle"), TALK, prompt=True) == expected
    assert expected.count(1) == 1


@pytest.mark.slow
def test_smollm2s_release_reads_back(smollm2: Path, tmp_path: Path) -> None:
    """With SmolLM2's real tokenizer and its own template, published from a folder that has no marks."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    expected = render(tokenizer, TALK, prompt=True)
    save_tokenizer(tokenizer, tmp_path)
    write_template(tmp_path, tokenizer, load_template("base", tokenizer), [2])
    assert replay(tmp_path) == 8
    assert render(AutoTokenizer.from_pretrained(tmp_path), TALK, prompt=True) == expected


def edit_json(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        plain = json.loads((folder / name).read_text())
        change(plain)
        (folder / name).write_text(json.dumps(plain))

    return edit


def edit_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes().decode()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new).encode())

    return edit


def replace_everywhere(old: str, new: str) -> Callable[[Path], None]:
    """Change the published template consistently: file, copy and digest."""

    def edit(folder: Path) -> None:
        edit_text("chat_template.jinja", old, new)(folder)
        template = make_template("", (folder / "chat_template.jinja").read_text())
        edit_json("tokenizer_config.json", lambda plain: plain.update(chat_template=template.source))(folder)
        edit_json("template_test.json", lambda plain: plain.update(chat_template_sha256=template.sha256))(folder)

    return edit


TAMPERED = {
    "one id": (
        edit_json("template_test.json", lambda plain: plain["conversations"][0]["ids"].append(5)),
        "chat_template.jinja: 'one turn' as a prompt: from position",
    ),
    "one byte of the template": (
        edit_text("chat_template.jinja", "<|user|>", "<|User|>"),
        "chat_template.jinja is not the file that template_test.json was made with",
    ),
    "the copy for older readers": (
        edit_json("tokenizer_config.json", lambda plain: plain.update(chat_template="other")),
        "tokenizer_config.json holds another chat_template than chat_template.jinja",
    ),
    "the template, consistently": (
        replace_everywhere("<|user|>", "<|User|>"),
        "chat_template.jinja: 'one turn' as a prompt: from position",
    ),
    "the template trained with": (
        edit_text("chat_template.training.jinja", "<|user|>", "<|User|>"),
        "chat_template.training.jinja: 'one turn' as a prompt: from position",
    ),
    "a refusal": (
        replace_everywhere("{%- if not loop.first %}", "{%- if true %}"),
        "chat_template.jinja: 'a system message' as a prompt must not be refused",
    ),
    "marks": (
        replace_everywhere("{{ bos_token }}", "{{ bos_token }}{% generation %}{% endgeneration %}"),
        "chat_template.jinja has {% generation %} tags, which readers other than transformers refuse",
    ),
    "line ends": (
        edit_text("chat_template.training.jinja", "\n", "\r\n"),
        "a template has line ends other than LF",
    ),
    "no template": (lambda folder: (folder / "chat_template.jinja").unlink(), "there is no chat_template.jinja"),
    "a special token": (
        edit_json("tokenizer_config.json", lambda plain: plain.update(bos_token="<unk>")),
        "chat_template.jinja: 'one turn' as a prompt: from position 0",
    ),
}


@pytest.mark.parametrize(("tamper", "problem"), TAMPERED.values(), ids=TAMPERED)
def test_replay_finds_what_was_changed(tamper: Callable[[Path], None], problem: str, bundle: Path) -> None:
    """Whatever is changed of template, copy, tokenizer or ids is found and named."""
    tamper(bundle)
    with pytest.raises(ReleaseError) as caught:
        replay(bundle)
    lines = caught.value.problem.splitlines()
    assert lines[0] == "the chat template of this release is not what was proved:"
    assert lines[1].startswith(f"  - {problem}")


def test_replay_refuses_a_damaged_test(bundle: Path) -> None:
    """A template_test.json that is absent or no longer valid is one clear error."""
    edit_json("template_test.json", lambda plain: plain["conversations"][0].pop("ids"))(bundle)
    with pytest.raises(ReleaseError, match=r"^template_test.json is damaged: conversations.0.ids: Field required"):
        replay(bundle)
    (bundle / "template_test.json").unlink()
    with pytest.raises(ReleaseError, match=r"^there is no template_test.json"):
        replay(bundle)


def test_replay_does_not_render_a_harmful_template(bundle: Path) -> None:
    """A release whose template would take all memory is refused by the child process, and named."""
    replace_everywhere("{{ bos_token }}", "{{ 'x' * 10**10 }}")(bundle)
    with pytest.raises(ModelError, match="needs more than 1024 MiB of memory"):
        replay(bundle)


def test_the_trained_template_is_published(trained: tuple[Path, IterationRecord]) -> None:
    """Without release.template, or with the same one, it is the one trained with, under its recorded name."""
    folder, record = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in (None, "base", str(folder / "chat_template.jinja")):
        choice = published_template(name, tokenizer, record, replace=False)
        assert choice == (make_template(record.template, tokenizer.chat_template), False)


def test_another_template_needs_replace_template(trained: tuple[Path, IterationRecord]) -> None:
    """Another template is an error that shows the ids and lines that differ; --replace-template lets it through."""
    folder, record = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ReleaseError) as caught:
        published_template("zephyr", tokenizer, record, replace=False)
    first, second, *lines = caught.value.problem.splitlines()
    assert first == "release.template 'zephyr' is another chat template than 'base', which the model was trained with:"
    assert second.startswith("  the ids of a question, from position 13: [")
    assert "  +{{ bos_token }}" in lines
    assert caught.value.todo == "remove release.template, or give --replace-template: the card then says so"
    choice = published_template("zephyr", tokenizer, record, replace=True)
    assert choice == (load_template("zephyr", tokenizer), True)


def test_a_template_that_only_reads_differently_is_another_one(
    trained: tuple[Path, IterationRecord], tmp_path: Path
) -> None:
    """A change that no sample shows is a change all the same: the text decides, and the message says that ids agree."""
    folder, record = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    path = tmp_path / "mine.jinja"
    path.write_text(tokenizer.chat_template + "{# mine #}")
    with pytest.raises(ReleaseError) as caught:
        published_template(str(path), tokenizer, record, replace=False)
    assert caught.value.problem.splitlines()[1] == "  the ids of a question are equal"


def test_a_template_changed_since_training_is_refused(trained: tuple[Path, IterationRecord]) -> None:
    """Where the model's folder no longer has the template of its record, nothing is published."""
    folder, record = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template += "\n"
    with pytest.raises(ReleaseError, match="in the model of iteration 1 is not the one that it was trained with"):
        published_template(None, tokenizer, record, replace=True)
