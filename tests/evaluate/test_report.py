"""report.html: what stands in it, and that nothing a model wrote can be anything but text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_rows import evaluation, flagged, rows

from kto_release.evaluate.report.page import facts, length_bins, pictures, render_report, write_report
from kto_release.evaluate.report.pictures import Mark, histogram, whiskers
from kto_release.evaluate.report.summary import variance_in_words
from kto_release.judges.rows import Judged
from kto_release.records import EvalRecord, Interval

NASTY = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1> & \u2028 ]]> <!-- \"'"


class Page(HTMLParser):
    """The elements of a page, and the text of its script and style elements."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes.append(dict(attrs))
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag in self.raw and self.cdata_elem == self.lasttag:
            self.raw[self.lasttag][-1] += data


def data_of(text: str) -> Any:
    """What the page's script reads."""
    return json.loads(Page(text).raw["script"][0])


def test_every_row_is_in_the_page() -> None:
    """Instruction, both answers, preference, orders, mass, failure and flags of each row, failed ones too."""
    judged = flagged(rows(6), {0: ("cut",), 5: ("empty", "cut")})
    plain = data_of(render_report(evaluation(judged), judged))
    assert [(row["instruction"], row["output"], row["reference"]) for row in plain["rows"]] == [
        (row.instruction, row.output, row.reference) for row in judged
    ]
    assert [row["preference"] for row in plain["rows"]] == [row.preference for row in judged]
    assert [row["orders"] for row in plain["rows"]] == [list(row.preferences) for row in judged]
    assert [row["failure"] for row in plain["rows"]] == [row.failure for row in judged]
    assert [row["flags"] for row in plain["rows"]] == [["cut"], [], [], [], [], ["empty", "cut"]]


def _hostile(record: EvalRecord) -> EvalRecord:
    plain = record.model_dump()
    for key in ("score", "instructions", "reference", "finished", "no_length_control"):
        plain[key] = NASTY
    plain["unreliable_because"], plain["gamed"], plain["reliable"] = [NASTY], [NASTY], False
    plain["by_dataset"] = {NASTY: plain["intervals"]["win_rate"], "other": plain["intervals"]["win_rate"]}
    plain["judge"] |= {"name": NASTY, "model": NASTY, "kind": NASTY, "prompt": NASTY}
    plain["model"]["name"] = NASTY
    plain["screening"], plain["estimated"] = {NASTY: 3}, {"text": NASTY}
    plain["generation"] |= {"engine": NASTY, "engine_version": NASTY, "dtype": NASTY}
    return EvalRecord.model_validate(plain)


def test_no_text_becomes_markup() -> None:
    """With hostile text in every place the page has the same elements and attributes as with harmless text."""
    judged = rows(12)
    hostile = [
        row._replace(
            instruction=NASTY,
            output=NASTY,
            reference=NASTY,
            dataset=NASTY,
            failure=row.failure and NASTY,
            flags=(NASTY,),
        )
        for row in judged
    ]
    plain = evaluation(judged).model_copy(
        update={
            "unreliable_because": ["a"],
            "gamed": ["a"],
            "reliable": False,
            "estimated": {"text": "a"},
            "screening": {"a": 3},
            "no_length_control": "a",
            "by_dataset": {name: evaluation(judged).intervals["win_rate"] for name in ("a", "b")},
        }
    )
    # Lengths are kept equal, so that the plots are the same.
    harmless = [row._replace(instruction="x", output="x", reference="x", dataset="x") for row in judged]
    before = Page(render_report(plain, harmless))
    after = Page(render_report(_hostile(evaluation(judged)), hostile))
    assert after.elements == before.elements
    assert [sorted(one) for one in after.attributes] == [sorted(one) for one in before.attributes]
    assert not [name for one in after.attributes for name in one if name.startswith("on")]


def test_the_data_block_holds_no_tag() -> None:
    """No "<" stands in the data, and reading it gives the very text."""
    judged = [rows(1)[0]._replace(output=NASTY)]
    text = render_report(evaluation(judged), judged)
    block = Page(text).raw["script"][0]
    assert "<" not in block
    assert "\u2028" not in block
    assert data_of(text)["rows"][0]["output"] == NASTY


def test_only_our_own_script_and_style_may_run() -> None:
    """The page's policy names the hashes of its one style and one script, and allows nothing else."""
    judged = rows(3)
    text = render_report(evaluation(judged), judged)
    page = Page(text)
    policy = next(one["content"] for one in page.attributes if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None

    def digest(source: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()

    (style,) = page.raw["style"]
    _, script = page.raw["script"]
    assert policy == (
        f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    addresses = [one[key] for one in page.attributes for key in ("src", "href", "action") if key in one]
    assert addresses == [], "a file that works offline refers to nothing"
    assert not re.search(r"style\s*=", text.split("</style>")[1].split("<script")[0])


def test_gamed_and_unreliable_scores_are_called_out() -> None:
    """A gamed score stands in an alarm, other doubts in a list of their own, each once.

    Records of earlier versions tell what is gamed among the doubts too.
    """
    judged = rows(3)
    record = EvalRecord.model_validate(
        evaluation(judged).model_dump()
        | {
            "reliable": False,
            "gamed": ["one answer for all"],
            "unreliable_because": ["a toy judge", "gamed: one answer for all"],
        }
    )
    assert record.unreliable_because == ["a toy judge"]
    text = render_report(record, judged)
    assert '<p class="alarm"><strong>The judge may be gamed:</strong> one answer for all.</p>' in text
    assert re.findall(r"<li>(.*?)</li>", text) == ["a toy judge"]
    sure = render_report(evaluation(judged), judged)
    assert 'class="alarm"' not in sure
    assert 'class="doubt"' not in sure


def test_scores_stand_with_their_intervals() -> None:
    """Win rate and length-controlled rate with interval and n; a missing one is not measured."""
    judged = rows(20)
    record = evaluation(judged)
    text = render_report(record, judged)
    interval = record.intervals["win_rate"]
    assert f"<dd>{interval.value:.1f}%</dd>" in text
    assert f"{interval.low:.1f} to {interval.high:.1f}" in text
    assert re.search(r'<dt>length-controlled</dt>\s*<dd>–</dd>\s*<dd class="interval">not measured</dd>', text)


def test_models_of_the_run_are_shown_on_one_scale_only() -> None:
    """Earlier iterations under the same judge, reference and instructions are shown; every other score is left out."""
    judged = rows(20)
    record = evaluation(judged, model="iteration-2")
    others = [
        evaluation(judged, model="iteration-10"),
        evaluation(judged, model="initial"),
        evaluation(judged, model="other-judge").model_copy(
            update={"judge": record.judge.model_copy(update={"prompt_sha256": "1" * 64})}
        ),
        evaluation(judged, model="other-reference").model_copy(update={"reference_sha256": "1" * 64}),
        evaluation(judged, model="other-instructions").model_copy(update={"instructions_sha256": "7" * 64}),
    ]
    assert [one.scale == record.scale for one in others] == [True, True, False, False, False]
    shown = {title: svg for title, _, svg in pictures(record, judged, others)}["Against the other models of this run"]
    assert re.findall(r"<title>([^<]+)</title>", shown) == ["initial", "iteration-2", "iteration-10"]
    alone = [title for title, _, _ in pictures(record, judged, [])]
    assert "Against the other models of this run" not in alone


def test_each_picture_needs_something_to_show() -> None:
    """Few rows give no plot of lengths, one data set no comparison of data sets; a failed row is in no picture."""
    few = rows(4)
    assert [title for title, _, _ in pictures(evaluation(few), few, [])] == ["Score"]
    many = rows(30)
    record = evaluation(many).model_copy(
        update={"by_dataset": {name: evaluation(many).intervals["win_rate"] for name in ("a", "b")}}
    )
    found = {title: svg for title, _, svg in pictures(record, many, [])}
    assert [*found] == ["Score", "By data set", "Win rate against length difference", "How sure the judge is"]
    scored = sum(row.preference is not None for row in many)
    assert scored < len(many)
    assert found["Win rate against length difference"].count('class="point"') == scored
    bars = [int(count) for count in re.findall(r"<rect[^>]*><title>(\d+)</title>", found["How sure the judge is"])]
    assert sum(bars) == scored


def test_one_data_set_is_no_comparison() -> None:
    """Where all instructions are from one data set there is nothing to set beside it."""
    judged = rows(12)
    record = evaluation(judged)
    record = record.model_copy(update={"by_dataset": {"sums": record.intervals["win_rate"]}})
    assert "By data set" not in [title for title, _, _ in pictures(record, judged, [])]


def test_certain_judgements_stand_at_the_ends() -> None:
    """Preferences of 0% and 100% are in the first and the last bar."""
    svg = histogram([0.0, 0.0, 100.0, 55.0], "preferences", bars=4)
    assert re.findall(r'class="(\w+)"><title>(\d+)</title>', svg) == [
        ("lost", "2"),
        ("lost", "0"),
        ("won", "1"),
        ("won", "1"),
    ]


def test_length_bins_are_means_of_equal_shares() -> None:
    """Forty answers, the longer the worse: four bins of ten, at their median difference, with mean and n."""
    points = [(float(number), 100.0 if number < 20 else 0.0) for number in range(40)]
    bins = length_bins(points)
    assert [(difference, interval.value, interval.n) for difference, interval in bins] == [
        (4.5, 100.0, 10),
        (14.5, 100.0, 10),
        (24.5, 0.0, 10),
        (34.5, 0.0, 10),
    ]


def test_a_mark_stands_where_its_value_is() -> None:
    """On a scale from 40 to 60% the value 50 is in the middle of the plot, and its interval spans from low to high."""
    interval = Interval(value=50.0, low=45.0, high=55.0, n=800, method="m")
    svg = whiskers([Mark("a", interval)], "one")
    assert 'cx="313.0"' in svg
    assert 'x1="242.5" y1="19.0" x2="383.5" y2="19.0" class="mark"' in svg


def test_what_was_not_measured_is_said() -> None:
    """The facts name what is null as not measured."""
    found = dict(facts(evaluation(rows(3))))
    assert found["probability on the answer letters"] == "not measured"
    assert found["variance of the win rate"] == "not measured"
    assert found["preference for the first place"] == "+5.0%"


def test_variance_is_told_in_shares() -> None:
    """A part that was not measured says so; estimates that add up to more than the whole are shares of their sum."""
    parts = {"total": 4.0, "instructions": 3.0, "generation": 1.0, "judge": None}
    assert variance_in_words(parts) == "instructions 75%, generation 25%, judge not measured"
    noisy = {"total": 1.0, "instructions": 0.0, "generation": 3.0, "judge": 1.0}
    assert variance_in_words(noisy) == "instructions 0%, generation 75%, judge 25%"


def test_the_official_leaderboard_stands_around_the_official_judges_score_only() -> None:
    """Three models above and below, and the result between them; nothing for another judge."""
    judged = rows(3)
    other = evaluation(judged).model_copy(update={"is_alpaca_eval": True, "length_controlled_winrate": 25.26})
    official = other.model_copy(update={"judge": other.judge.model_copy(update={"official": True})})
    text = render_report(official, judged)
    ranks = re.findall(r"<td>(→|\d+)</td><td>", text)
    assert ranks == ["87", "88", "89", "→", "90", "91", "92"]
    assert "official leaderboard" not in render_report(other, judged)


def test_the_report_is_one_file(tmp_path: Path) -> None:
    """Writing gives report.html alone, and writing again the same bytes."""
    judged = rows(12)
    path = write_report(tmp_path, evaluation(judged), judged)
    first = path.read_bytes()
    write_report(tmp_path, evaluation(judged), judged)
    assert path.read_bytes() == first
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("preference", [1.0, 1.5, 2.0])
def test_wins_draws_and_losses_are_all_scored(preference: float) -> None:
    """A clear loss is a point at 0%, a draw at 50%, a clear win at 100%."""
    judged = [Judged(f"q{n}", None, "a", "b", preference) for n in range(10)]
    ((_, interval),) = length_bins([(0.0, 100 * (preference - 1))] * 10)
    assert interval.value == 100 * (preference - 1)
    shown = {title: svg for title, _, svg in pictures(evaluation(judged), judged, [])}
    assert shown["Win rate against length difference"].count('class="point"') == 10
