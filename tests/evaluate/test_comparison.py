"""`eval --compare A B [C ...]`: which evaluations are meant, what they are called, and what is kept to be read."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import run_command
from evaluations import JUDGE, write_evaluation

from kto_release.errors import DataError, RunError, ScoreError
from kto_release.evaluate.baseline import stored_reference
from kto_release.evaluate.comparison.command import compare_runs
from kto_release.evaluate.comparison.record import ComparisonRecord
from kto_release.evaluate.instructions import InstructionSet
from kto_release.evaluate.questions import Instruction
from kto_release.files import read_record
from kto_release.records import EvalRecord

MIXED = [1.0, 1.2, 1.9, 1.5, 1.4, 1.8] * 10
SET, JUDGED = "instructions-00000000", "judge-1-x"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run_with(root: Path, name: str, gain: float, model: str = "iteration-1", **changes: Any) -> Path:
    """A run with one evaluated model, whose preferences are `gain` above the mixed ones."""
    preferences = [min(2.0, value + gain) for value in MIXED]
    write_evaluation(root / name / "eval" / model / SET / JUDGED, model, preferences, **changes)
    return root / name


def compared(folders: list[Path], **options: Any) -> ComparisonRecord:
    """The comparison that is written."""
    compare_runs(folders, length_control=False, **options)
    where = options.get("output") or next((folders[0] / "eval" / "comparisons").iterdir())
    found = read_record(where / "comparison.json", ComparisonRecord)
    assert found is not None
    return found


def test_three_runs_are_compared_pair_by_pair(tmp_path: Path) -> None:
    """Each pair once, in the order of the folders, under the runs' names, since all three are called iteration-1."""
    runs = [run_with(tmp_path, name, gain) for name, gain in (("july", 0.0), ("august", 0.04), ("september", 0.04))]
    found = compared(runs)
    names = ["july iteration-1", "august iteration-1", "september iteration-1"]
    assert [one.name for one in found.compared] == names
    assert [one.folder for one in found.compared] == [str(run / "eval" / "iteration-1" / SET / JUDGED) for run in runs]
    assert [(pair.first, pair.second, pair.win_rate.verdict) for pair in found.pairs] == [
        (names[0], names[1], "worse"),
        (names[0], names[2], "worse"),
        (names[1], names[2], "not distinguishable"),
    ]
    assert [(pair.verdict.won, pair.verdict.lost, pair.verdict.drawn) for pair in found.pairs] == [
        (0, 60, 0),
        (0, 60, 0),
        (0, 0, 60),
    ]
    # Holm: the least p of three counts three times, the next as much at least, and none is above 1.
    least = found.pairs[0].win_rate.p_value
    assert [pair.win_rate.p_holm for pair in found.pairs] == [3 * least, 3 * least, 1.0]


def test_a_run_named_twice_is_compared_with_its_reference(tmp_path: Path) -> None:
    """Where no earlier model of it was evaluated: the difference is the win rate less 50, of the same questions."""
    run = run_with(tmp_path, "run", 0.1)
    found = compared([run, run])
    [pair] = found.pairs
    assert (pair.first, pair.second) == ("iteration-1", "initial")
    record = read_record(run / "eval" / "iteration-1" / SET / JUDGED / "results.json", EvalRecord)
    assert record is not None
    assert record.win_rate is not None
    assert pair.win_rate.points.value == pytest.approx(record.win_rate - 50)
    assert (pair.verdict.won, pair.verdict.lost, pair.verdict.drawn) == (30, 20, 10)
    assert [one.folder is None for one in found.compared] == [False, True]


def test_models_of_one_name_have_names_that_differ(tmp_path: Path) -> None:
    """Also where the runs have one name: by the weights, or by a number where these are the same."""
    one = run_with(tmp_path / "a", "run", 0.0)
    other = run_with(tmp_path / "b", "run", 0.1)
    assert [one.name for one in compared([one, other]).compared] == ["iteration-1 (1)", "iteration-1 (2)"]


def test_a_reference_is_what_it_answers_not_what_it_is_called(tmp_path: Path) -> None:
    """Last month's release was compared with a run's own model, this month's with a file of its answers."""
    old = run_with(tmp_path, "old", 0.0, reference="velora/support", reference_sha256="same")
    new = run_with(tmp_path, "new", 0.1, reference="velora-support", reference_sha256="same")
    found = compared([new, old])
    assert (found.pairs[0].win_rate.verdict, found.reference) == ("better", "velora-support")
    third = run_with(tmp_path, "third", 0.1, reference="other")
    with pytest.raises(ScoreError, match="reference: 'velora-support' there, 'other' here"):
        compare_runs([new, third], length_control=False)


def test_the_reference_of_an_earlier_run_is_pinned(tmp_path: Path) -> None:
    """A run's folder as eval.reference is what it was compared with, under its name and its digest."""
    run = run_with(tmp_path, "old", 0.0, reference="velora/support")
    texts = [f"Instruction {number}" for number in range(60)]
    instructions = InstructionSet("own", [Instruction(text, "") for text in texts], "0" * 64, None)
    found = stored_reference(str(run), instructions)
    assert found is not None
    record = read_record(run / "eval" / "iteration-1" / SET / JUDGED / "results.json", EvalRecord)
    assert record is not None
    assert (found.name, found.sha256) == ("velora/support", record.reference_sha256)
    assert found.texts == {text: f"reference answer {number}" for number, text in enumerate(texts)}
    run_with(tmp_path, "old", 0.0, model="iteration-2", reference="another")
    with pytest.raises(DataError, match="were compared with different answers: another"):
        stored_reference(str(run), instructions)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no evaluation"):
        stored_reference(str(tmp_path / "empty"), instructions)


def test_doubts_go_where_the_comparison_goes(tmp_path: Path) -> None:
    """What speaks against one of two scores stands beside their difference, in the record and on the page."""
    one, other = run_with(tmp_path, "one", 0.1, model="iteration-2"), run_with(tmp_path, "other", 0.0)
    path = one / "eval" / "iteration-2" / SET / JUDGED / "results.json"
    record = read_record(path, EvalRecord)
    assert record is not None
    changed = record.model_copy(update={"gamed": ["one answer"], "unreliable_because": ["it follows no question"]})
    path.write_text(changed.model_dump_json())
    found = compared([one, other])
    doubts = ["iteration-2: gamed: one answer", "iteration-2: it follows no question"]
    assert found.pairs[0].verdict.doubts == doubts
    page = next((one / "eval" / "comparisons").glob("*/comparison.html")).read_text(encoding="utf-8")
    assert "gamed: one answer" in page
    assert "(NOT to be relied on)" in page


def test_a_comparison_can_be_kept_elsewhere(tmp_path: Path) -> None:
    """--output names the folder; one that can't be written to is an error that says so."""
    runs = [run_with(tmp_path, name, gain) for name, gain in (("a", 0.0), ("b", 0.1))]
    compared(runs, output=tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["comparison.html", "comparison.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the comparison can't be written into"):
        compare_runs(runs, output=tmp_path / "file" / "below", length_control=False)


def test_a_folder_is_named_once_among_three(tmp_path: Path) -> None:
    """Twice stands for a run against its own past, and of two only."""
    run, other = run_with(tmp_path, "a", 0.0), run_with(tmp_path, "b", 0.1)
    with pytest.raises(RunError, match="a folder is named twice"):
        compare_runs([run, other, run], length_control=False)


def test_the_command_takes_any_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`eval --compare A B C --output DIR`; a recipe beside it is refused."""
    runs = [run_with(tmp_path, name, gain) for name, gain in (("a", 0.0), ("b", 0.1), ("c", 0.2))]
    result = run_command(monkeypatch, capfd, "eval", "--compare", *runs, "--no-lc", "--output", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert result.out.count(" minus ") == 3
    assert "of 3 pairs, these differ at p < 0.05 for all of them together: a iteration-1 is worse than b" in result.out
    assert (tmp_path / "out" / "comparison.html").is_file()
    refused = run_command(monkeypatch, capfd, "eval", tmp_path / "recipe.yaml", "--compare", *runs[:2])
    assert refused.code == 1
    assert "a recipe and --compare at once" in refused.err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.slow
def test_the_page_shows_all_answers_side_by_side(browser: Any, tmp_path: Path) -> None:
    """A column for the reference and each model; the words that differ; only the questions on which answers differ."""
    nasty = "<img src=x onerror=window.pwned=1> the old grey cat"
    texts = {
        "a": [nasty, "the same", "one"],
        "b": ["the new grey cat sat", "the same", "two"],
        "c": ["x", "the same", "two"],
    }
    runs = []
    for name, answers in texts.items():
        folder = tmp_path / name / "eval" / "initial" / SET / JUDGED
        write_evaluation(folder, "initial", [1.9, 1.5, 1.2], judge=JUDGE, outputs=answers)
        runs.append(tmp_path / name)
    compare_runs(runs, output=tmp_path / "out", length_control=False)
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900})
    page, complaints, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url.split(":")[0]))
    page.goto((tmp_path / "out" / "comparison.html").as_uri())
    heads = page.locator("#columns h3").all_text_contents()
    assert heads == ["initial", "a initial", "b initial", "c initial"]
    assert page.locator("#columns .answer").all_text_contents() == [
        "reference answer 0",
        nasty,
        "the new grey cat sat",
        "x",
    ]
    assert page.locator("#columns .said").nth(1).text_content() == f"won, 90.0% · {len(nasty)} characters"
    page.select_option("#show", "differs")
    assert page.locator("#list .number").all_text_contents() == ["1", "3"]
    page.select_option("#how", "words")
    page.select_option("#base", "1")
    third = page.locator("#columns .answer").nth(2)
    assert third.locator("ins").all_text_contents() == ["new", " sat"]
    assert "old" in third.locator("del").all_text_contents()
    page.fill("#search", "grey")
    assert page.text_content("#count") == "1 of 3"
    assert page.locator("#columns mark").first.text_content() == "grey"
    page.set_viewport_size({"width": 420, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert (page.evaluate("window.pwned"), complaints, asked) == (None, [], ["file"])
    context.close()
