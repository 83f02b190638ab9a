"""The model card: metadata for the Hub and a text for people, both made of `CardFacts` and of nothing else."""

import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_release.errors import ReleaseError
from kto_release.files import write_atomically
from kto_release.model_cards import card_template
from kto_release.release import markdown
from kto_release.release.allowed import FACTS, README
from kto_release.release.card_tables import (
    DOUBTFUL,
    evaluation_tables,
    hub_link,
    iteration_table,
    shown,
    source_link,
    training_table,
)
from kto_release.release.facts import CardFacts
from kto_release.release.licenses import KNOWN
from kto_release.release.markdown import Raw
from kto_release.release.model_index import EVAL_RESULTS, METRIC_TYPES, eval_results, model_index
from kto_release.release.programs import programs
from kto_release.release.readers import OLDEST

DEFAULT_TAGS = ["kto", "human-feedback", "alignment"]
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
PLACEHOLDERS = {"", "none", "null", "license", "todo", "unknown", "tbd", "n/a"}
"""Values that generated cards are known to carry by mistake."""


def write_card(folder: Path, facts: CardFacts, *, results: bool = False) -> None:
    """Write README.md into a bundle, and records/card.json with those facts that no other record there holds.

    `results` writes .eval_results/ too, where there are any for it.
    """
    rest = facts.model_dump(mode="json", exclude={"iterations", "evaluations", "weights"})
    write_atomically(folder / FACTS, json.dumps(rest, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / README, render_card(facts))
    entries = eval_results(facts) if results else None
    if entries is not None:
        write_atomically(folder / EVAL_RESULTS, entries)


def render_card(facts: CardFacts) -> str:
    """The whole README.md. Raises `ReleaseError` where its metadata would not be valid on the Hub."""
    plain = metadata(facts)
    problems = metadata_problems(plain)
    if problems:
        raise ReleaseError(
            "the card's metadata is not valid:\n" + "\n".join(f"  - {line}" for line in problems),
            todo="mend these keys under `release` in the recipe",
        )
    iterations, evaluations = iteration_table(facts), evaluation_tables(facts)
    body = _template().render(
        facts=facts,
        link=markdown.link,
        hub=functools.partial(hub_link, facts.endpoint),
        data=functools.partial(source_link, facts.endpoint),
        earlier=facts.rounds[:-1],
        iterations=iterations,
        training=training_table(facts),
        evaluations=evaluations,
        doubtful=any(DOUBTFUL in str(text) for text in [iterations, *(scale["table"] for scale in evaluations)]),
        programs=programs(facts),
        oldest=OLDEST,
        packages=_packages(facts),
        warnings=[*warnings(facts)],
        hours=sum(record.training.seconds for record in facts.iterations) / 3600,
        hardware=[*dict.fromkeys(record.environment.hardware for record in facts.iterations)],
    )
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    return f"---\n{_yaml(plain)}---\n\n{body}\n"


@functools.cache
def _template() -> Any:
    """The compiled template. Whatever it prints is escaped unless it is `Raw`: nothing can be forgotten."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701  the output is Markdown, and `finalize` escapes it
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=markdown.escape
    )
    environment.filters.update(
        code=markdown.code,
        fence=markdown.fence,
        paragraphs=markdown.paragraphs,
        bibtex=_bibtex,
        shown=shown,
        verbatim=markdown.verbatim,
    )
    return environment.from_string(card_template())


def metadata(facts: CardFacts) -> dict[str, Any]:
    """The YAML block's content, as plain data in the Hub's order."""
    from huggingface_hub import ModelCardData

    results = model_index(facts)
    measured = [METRIC_TYPES[facts.last.probe.held_out.name]] if facts.last.probe.held_out else []
    card: Any = ModelCardData(  # Any: its methods are not typed
        language=_plain(facts.language),
        license=facts.license.id,
        license_name=facts.license.license_name,
        license_link=facts.license.license_link,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=facts.base.hub_id,
        base_model_relation="finetune" if facts.base.hub_id else None,
        tags=_plain(facts.tags or DEFAULT_TAGS),
        datasets=_plain(facts.datasets) or None,
        metrics=_plain([*dict.fromkeys([*facts.metrics, *measured])]) or None,
        model_name=facts.title if results else None,
        eval_results=results or None,
    )
    plain: dict[str, Any] = card.to_dict()
    if facts.emissions is not None:
        source = markdown.plain(facts.emissions.source)
        plain["co2_eq_emissions"] = {"emissions": facts.emissions.grams, "source": source}
    return plain


def _plain(values: Sequence[str]) -> list[str]:
    return [markdown.plain(value) for value in values]


def metadata_problems(plain: dict[str, Any]) -> list[str]:
    """What the Hub would refuse or misread in a card's metadata, as far as that can be known offline."""
    found = [f"{key}: {value!r} is a placeholder" for key, value in plain.items() if _is_placeholder(value)]
    license_id = plain.get("license")
    if license_id is not None and license_id != "other" and license_id not in KNOWN:
        found.append(f"license: {license_id!r} is no licence id of the Hub")
    codes = plain.get("language") or []
    found += [f"language: {code!r} is no ISO 639 code" for code in codes if not LANGUAGE.fullmatch(code)]
    ids = [("base_model", plain.get("base_model")), *(("datasets", name) for name in plain.get("datasets") or [])]
    found += [f"{key}: {name!r} is no Hub id" for key, name in ids if name is not None and not _is_hub_id(name)]
    found += [f"tags: {tag!r} is not a tag" for tag in plain.get("tags") or [] if not 0 < len(tag) <= 96]
    return found


def _is_placeholder(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(item is None or (isinstance(item, str) and item.strip().lower() in PLACEHOLDERS) for item in values)


def _is_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # exported, not in __all__

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _yaml(plain: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10_000)


def _packages(facts: CardFacts) -> str:
    """Versions of what the last iteration was trained with, in one line."""
    environment = facts.last.environment
    versions = {"kto-release": environment.kto_release, "Python": environment.python, **environment.packages}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _bibtex(entries: Sequence[str]) -> Raw:
    return markdown.fence("\n\n".join(entries), "bibtex")


def warnings(facts: CardFacts) -> Iterator[str]:
    """What a reader must know before any number."""
    done = facts.last.iteration
    if done < facts.planned:
        yield f"This is iteration {done} of {facts.planned} of the recipe."
    for record in facts.evaluations:
        if record.gamed:
            yield f"The score of {record.who} may be gamed: {'; '.join(record.gamed)}."
    if facts.prompt is not None and facts.prompt.replaced:
        yield (
            f"The chat template was replaced: published is {facts.prompt.template}, "
            f"trained with was {facts.prompt.trained_with}."
        )
    if facts.license.conflicts and facts.license.override:
        yield f"The licence overrides what it is made of: {facts.license.override}"
