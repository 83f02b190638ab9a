"""Rounds of releases: each one knows the first model, and all that was trained on since."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_builder import build_run

from kto_release.errors import RecipeError
from kto_release.lineage import question_digest, questions, read_lineage
from kto_release.models import locate
from kto_release.release import publish
from kto_release.release.card import render_card
from kto_release.release.facts import collect_facts
from kto_release.release.options import Options, target_of
from kto_release.run import Run

pytestmark = pytest.mark.slow


def trained(folder: Path, base: Path, number: int) -> Run:
    """A round of its own: other feedback under another licence, released under another name."""
    folder.mkdir(parents=True)
    feedback = folder / f"month-{number}.jsonl"
    rows = [
        {"prompt": f"What did we learn in month {number} on day {day}?", "chosen": "A lot.", "rejected": "Who knows?"}
        for day in range(12)
    ]
    feedback.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections: dict[str, dict[str, Any]] = {
        "model": {"base": str(base)},
        "data": {"source": str(feedback), "held_out": None},
        "release": {"repo_id": f"org/month-{number}", "data_license": ["mit", "cc-by-4.0", "cc0-1.0"][number - 1]},
    }
    return build_run(folder, base, iterations=1, evaluated=False, sections=sections)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[Run]:
    """From a local copy of org/root; from the release of that, as a folder; from an iteration of that."""
    root = tmp_path_factory.mktemp("rounds")
    base = Path(shutil.copytree(tiny_model, root / "copy"))
    (base / "README.md").write_text("---\nbase_model: org/root\nlicense: apache-2.0\n---\n")
    first = trained(root / "1", base, 1)
    publish(first, dry_run=True)
    second = trained(root / "2", first.release_folder / "bundle", 2)
    third = trained(root / "3", second.iteration(1) / "model", 3)
    publish(third, dry_run=True)
    return [first, second, third]


def test_the_third_round_knows_the_first_model_and_all_that_came_between(rounds: list[Run]) -> None:
    """One root, three rounds, each with its parent, its data and their licences, in the release and on its card."""
    bundle = rounds[2].release_folder / "bundle"
    lineage = read_lineage(bundle)
    assert lineage is not None
    assert (lineage.root.hub_id, lineage.root.traced, lineage.root.license) == ("org/root", True, "apache-2.0")
    assert [(each.repo_id, each.parent) for each in lineage.rounds] == [
        ("org/month-1", "copy"),
        (None, "org/month-1"),
        ("org/month-3", "model"),
    ]
    assert [(source.name, source.license) for each in lineage.rounds for source in each.data] == [
        ("month-1.jsonl", "mit"),
        ("month-2.jsonl", "cc0-1.0"),
        ("month-3.jsonl", "cc0-1.0"),
    ]
    parents = [each.parent_sha256 for each in lineage.rounds]
    assert parents == [run.iteration_records()[0].parent.sha256 for run in rounds]
    card = (bundle / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "org/root"
    assert "this is training round 3 since that family's model" in card
    for name in ("month-1.jsonl", "month-2.jsonl", "month-3.jsonl"):
        assert f"- data `{name}`: " in card


def test_questions_of_all_rounds_count_as_trained_on(rounds: list[Run]) -> None:
    """Contamination does not wash out with the next round: what the first one asked is known to the third, as hashes."""
    lineage = read_lineage(rounds[2].iteration(1) / "model")
    assert lineage is not None
    asked = questions(lineage.rounds)
    assert len(asked) == 36
    for month in (1, 2, 3):
        assert question_digest(f"what did we LEARN in month {month} on day 11") in asked
    assert question_digest("What did we learn in month 4 on day 11?") not in asked
    assert all(each.questions_known for each in lineage.rounds)


def test_names_lead_to_the_hub_that_the_release_goes_to(rounds: list[Run]) -> None:
    """On another Hub than the public one a name there may be anybody's: links and programs lead to the recipe's."""
    run = rounds[0]
    section = run.recipe.release.model_copy(update={"endpoint": "https://hub.example.org/"})
    recipe = run.recipe.model_copy(update={"release": section})
    facts = collect_facts(recipe, run.iteration_records(), [], base=locate(recipe.model.base))
    card = render_card(facts)
    assert "[org/root](https://hub.example.org/org/root)" in card
    assert "https://huggingface.co" not in card
    assert card.count("export HF_ENDPOINT=https://hub.example.org\n") == 2
    assert card.count('os.environ["HF_ENDPOINT"] = "https://hub.example.org"') == 2
    with pytest.raises(RecipeError) as caught:
        target_of(section, Options())
    assert str(caught.value).startswith("release.endpoint is 'https://hub.example.org/', and HF_ENDPOINT leads to ")
    assert caught.value.todo == "export HF_ENDPOINT=https://hub.example.org, and log in there"
