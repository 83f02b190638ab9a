"""The companion's folder: one file for each kind that the recipe asks for, its card, and Ollama's files."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release import console
from kto_release.errors import ReleaseError
from kto_release.files import write_atomically
from kto_release.kept import read_rows
from kto_release.release import markdown
from kto_release.release.facts import CardFacts
from kto_release.release.gguf import llama
from kto_release.release.gguf.convert import FILE_TYPES, convert
from kto_release.release.gguf.measure import GgufFacts, Recorded, measure
from kto_release.release.replay import TEST

SUFFIX = "-GGUF"
NOT_MEASURED = "not measured"


class Companion(NamedTuple):
    """What was made."""

    folder: Path
    files: list[GgufFacts]
    problems: list[str]
    """Why it may not be published; empty: nothing is wrong."""


def make(
    bundle: Path, folder: Path, kinds: Sequence[str], facts: CardFacts, iteration: Path, *, limit: float
) -> Companion:
    """Make the companion of a finished `bundle` in `folder`.

    `iteration` is the trained iteration's folder, which holds the rows to measure on; `limit` is the least share of the
    training that each file must keep. Raises `ReleaseError` for a model that can't be converted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stem = (facts.repo_id or facts.title).rsplit("/", 1)[-1]
    record = facts.last
    rows = [row for row in read_rows(iteration) if row.digest in record.initial_logprobs]
    recorded = Recorded(trained=record.logprobs, initial=record.initial_logprobs)
    parameters = facts.weights.parameters if facts.weights else record.model.parameters
    found: list[GgufFacts] = []
    problems: list[str] = []
    for kind in dict.fromkeys(kinds):
        file = folder / f"{stem}-{kind.upper()}.gguf"
        _write(bundle, file, kind, stem)
        made = measure(bundle, file, kind, parameters, rows, recorded)
        found.append(made)
        if made.kept is not None and made.kept.value < limit:
            problems.append(f"{file.name} keeps {made.kept.value:.1%} of the training, less than {limit:.0%}")
        if llama.is_installed():
            problems += [f"{file.name}, read by llama.cpp: {line}" for line in llama.problems(file, bundle)]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", TEST):
        if (bundle / name).is_file():
            shutil.copyfile(bundle / name, folder / name)
    _write_ollama(folder, facts)
    write_atomically(folder / "gguf.json", json.dumps([one.model_dump(mode="json") for one in found], indent=2) + "\n")
    write_atomically(folder / "README.md", card(facts, found))
    return Companion(folder, found, problems)


def _write(bundle: Path, file: Path, kind: str, name: str) -> None:
    if kind in FILE_TYPES:
        convert(bundle, file, kind, name=name)
        return
    whole = file.with_suffix(".whole")
    convert(bundle, whole, "f32", name=name)
    try:
        llama.quantize(whole, file, kind)
    finally:
        whole.unlink()


def _write_ollama(folder: Path, facts: CardFacts) -> None:
    """What Ollama reads of a repository beside the weights: where answers stop, and how the scores were sampled."""
    sampling = facts.sampling
    params: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    params |= {"top_k": sampling.top_k} if sampling.top_k else {}
    params |= {"stop": facts.prompt.stop} if facts.prompt and facts.prompt.stop else {}
    write_atomically(folder / "params", json.dumps(params, indent=1, ensure_ascii=False) + "\n")


def card(facts: CardFacts, files: Sequence[GgufFacts]) -> str:
    """README.md of the companion."""
    import yaml

    repo = facts.repo_id or facts.title
    plain = {
        "base_model": repo,
        "base_model_relation": "quantized",
        "license": facts.license.id,
        "license_name": facts.license.license_name,
        "license_link": facts.license.license_link,
        "language": facts.language,
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": [*facts.tags, "gguf"] if facts.tags else ["kto", "gguf"],
    }
    front = yaml.safe_dump({k: v for k, v in plain.items() if v is not None}, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(_body(facts, files, repo)) + "\n"


def _body(facts: CardFacts, files: Sequence[GgufFacts], repo: str) -> Iterator[str]:
    yield f"# {markdown.escape(facts.title)}, as GGUF"
    yield ""
    yield f"The weights of {markdown.link(repo, f'{facts.endpoint}/{repo}')} for llama.cpp, Ollama and what is built on"
    yield "them. How it was made, what it may be used for and its scores stand there; they are that model's own."
    yield ""
    yield (
        "| file | MB | bits per weight | of the training, kept (95% interval) | KL to the published weights, nats "
        "| same likeliest token |"
    )
    yield "|---|---|---|---|---|---|"
    for one in files:
        share = NOT_MEASURED if one.kept is None else f"{one.kept.value:.1%} ({one.kept.shown(100)})"
        kl = NOT_MEASURED if one.kl is None else f"{one.kl:.2g}"
        top = NOT_MEASURED if one.top1 is None else f"{one.top1:.1%}"
        size, bits = f"{one.bytes / 1e6:.1f}", f"{one.bits_per_weight:.2f}"
        yield f"| {markdown.code(one.file)} | {size} | {bits} | {share} | {kl} | {top} |"
    yield ""
    rows = max((one.kept.n for one in files if one.kept is not None), default=0)
    if rows:
        tokens = max(one.tokens for one in files)
        yield f"Measured on {rows} recorded answers ({tokens:,} tokens), each file read back by transformers. Kept is"
        yield "the slope of the file's log-ratios, against the initial model, on the trained model's."
        yield ""
    read = "gave" if llama.is_installed() else "was not asked for"
    yield f"llama.cpp's tokenizer {read} the ids of `template_test.json` before this was published."


def show(made: Companion) -> None:
    """The files on the console."""
    rows = [
        (
            one.file,
            f"{one.bytes / 1e6:.1f} MB",
            NOT_MEASURED if one.kept is None else f"{one.kept.value:.1%} ({one.kept.shown(100)})",
            NOT_MEASURED if one.kl is None else f"{one.kl:.2g}",
            NOT_MEASURED if one.top1 is None else f"{one.top1:.1%}",
        )
        for one in made.files
    ]
    console.table("GGUF", ("file", "size", "kept of the training", "KL, nats", "same likeliest token"), rows)


def refuse(made: Companion) -> None:
    """Raise `ReleaseError` with everything that is wrong."""
    if made.problems:
        raise ReleaseError(
            "the GGUF companion may not be published:\n" + "\n".join(f"  - {line}" for line in made.problems),
            todo="take these kinds out of release.gguf",
        )
