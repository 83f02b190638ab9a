"""report.html in a real browser: nothing of a model's text runs, everything can be found, and 805 rows don't lag."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_rows import evaluation, flagged, rows

from kto_release.evaluate.report.page import write_report

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1><svg onload=window.pwned=1>"
FRAME = 100
"""Milliseconds that an action on 805 rows may take: a person takes it for immediate. Measured: 20 to 60 on two cores."""


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


class Opened:
    """A page of the report, with what the browser complained about and asked the network for."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.complaints, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#list li")

    def shown(self) -> list[str]:
        """Numbers of the rows in the list, in its order."""
        found: list[str] = self.page.eval_on_selector_all(
            "#list li:not([hidden])", "items => items.map(item => item.firstChild.textContent)"
        )
        return found

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))


@pytest.fixture
def open_report(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a report of the given rows, with no network at all."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 1000})

    def opened(judged: list[Any], prompt: Any = (), **changes: Any) -> Opened:
        record = evaluation(judged).model_copy(update=changes)
        return Opened(context.new_page(), write_report(tmp_path, record, judged, prompt=prompt))

    yield opened
    context.close()


def test_nothing_that_a_model_wrote_runs(open_report: Any) -> None:
    """Hostile text in every place stands on the page as text; the page has its own two scripts and no picture."""
    judged = [
        row._replace(
            instruction=NASTY,
            output=NASTY,
            reference=NASTY,
            dataset=NASTY,
            failure=row.failure and NASTY,
            flags=(NASTY,),
        )
        for row in rows(12)
    ]
    opened = open_report(
        judged,
        score=NASTY,
        reference=NASTY,
        gamed=[NASTY],
        unreliable_because=[NASTY],
        reliable=False,
    )
    opened.page.fill("#search", "<img")
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.pwned") is None
    assert opened.text("#instruction") == opened.text("#output") == opened.text("#against") == NASTY
    assert opened.text("mark") == "<img"
    assert opened.page.locator("#output *").evaluate_all("all => all.map(one => one.tagName)") == ["P", "MARK"]
    assert opened.page.eval_on_selector_all("script, img, iframe, object", "all => all.length") == 2
    assert opened.complaints == []


def test_the_page_asks_nobody(open_report: Any) -> None:
    """One file, no request beside it, and no complaint of the browser."""
    opened = open_report(rows(12))
    assert [url.split(":")[0] for url in opened.asked] == ["file"]
    assert opened.complaints == []


def test_filters(open_report: Any) -> None:
    """Won, lost, drawn, failed, flagged, by data set and by flag: each shows its rows, and how many."""
    opened = open_report(flagged(rows(12), {0: ("cut",), 2: ("empty",)}))
    page = opened.page
    expected = {
        "all": [str(number) for number in range(1, 13)],
        "won": ["1", "6", "7", "12"],
        "lost": ["2", "5", "8", "11"],
        "drawn": ["3", "9"],
        "failed": ["4", "10"],
        "flagged": ["1", "3"],
    }
    for name, numbers in expected.items():
        button = page.locator("#filters button", has_text=name)
        assert button.text_content() == f"{name} {len(numbers)}"
        button.click()
        assert opened.shown() == numbers
        assert button.get_attribute("aria-pressed") == "true"
        assert opened.text("#count") == f"{len(numbers)} of 12"
    page.select_option("#flag", "empty")
    assert opened.shown() == ["3"]
    page.select_option("#flag", "")
    page.select_option("#dataset", "sums")
    assert opened.shown() == ["1"], "the filter 'flagged' still holds"
    page.locator("#filters button").first.click()
    assert opened.shown() == ["1", "4", "7", "10"]


def test_search_finds_and_marks(open_report: Any) -> None:
    """Search looks into instructions and both answers, whatever the case, and marks what it found."""
    opened = open_report(rows(12))
    opened.page.fill("#search", "REFERENCE SAYS 7.")
    assert opened.shown() == ["7"]
    assert opened.page.locator("#against mark").first.text_content() == "Reference says 7."
    opened.page.fill("#search", "(no such [thing]")
    assert opened.shown() == []
    assert opened.page.is_visible("#nothing")
    assert not opened.page.is_visible("#detail")
    opened.page.press("#search", "Escape")
    assert len(opened.shown()) == 12


def test_one_judgement(open_report: Any) -> None:
    """The chosen row with both answers, the verdict in both orders, the mass, the lengths and the flags."""
    opened = open_report(flagged(rows(12), {0: ("cut", "trained_on")}))
    assert opened.text("#place") == "instruction 1 of 12 · sums"
    assert opened.text("#verdict") == "won, 90.0%"
    assert opened.text("#output") == "Model says 1. "
    assert opened.text("#against") == "Reference says 1. "
    assert opened.text("#told") == (
        "reference shown first: 85.0% · model shown first: 95.0% · probability on the answer letters 90.0% · "
        "-4 characters against the reference · ⚑ cut at max_tokens · ⚑ the instruction is among the training prompts"
    )
    opened.page.locator("#list li").nth(3).evaluate("item => item.click()")
    assert opened.text("#verdict") == "judgement failed"
    assert opened.text("#told").startswith("failed: the judge said neither")


def test_keyboard(open_report: Any) -> None:
    """Everything can be reached without a mouse."""
    opened = open_report(rows(12))
    press, page = opened.page.keyboard.press, opened.page

    def place() -> str:
        return opened.text("#place").split(" · ")[0]

    for key, expected in [("j", 2), ("ArrowDown", 3), ("k", 2), ("ArrowUp", 1), ("k", 1), ("End", 12), ("Home", 1)]:
        press(key)
        assert place() == f"instruction {expected} of 12"
    press("3")
    assert opened.shown() == ["2", "5", "8", "11"]
    press("1")
    press("/")
    page.keyboard.type("question 5:")
    assert opened.shown() == ["6"]
    press("Escape")
    press("Escape")
    press("j")
    assert place() == "instruction 7 of 12", "the row that was found stays chosen"
    press("?")
    assert page.is_visible("#keys")
    press("Escape")
    assert not page.is_visible("#keys")


def test_order(open_report: Any) -> None:
    """Rows by preference, by how unsure the judge is, and by length; failed ones last."""
    opened = open_report(rows(6))
    for order, numbers in {
        "lost": ["5", "2", "3", "1", "6", "4"],
        "won": ["6", "1", "3", "2", "5", "4"],
        "unsure": ["3", "2", "1", "5", "6", "4"],
        "given": ["1", "2", "3", "4", "5", "6"],
    }.items():
        opened.page.select_option("#order", order)
        assert opened.shown() == numbers
    opened.page.select_option("#order", "longer")
    assert opened.shown()[0] == "4"


def test_a_row_has_an_address(open_report: Any, tmp_path: Path) -> None:
    """report.html#5 opens the fifth row."""
    opened = open_report(rows(12))
    opened.page.goto((tmp_path / "report.html").as_uri() + "#5")
    assert opened.text("#place").startswith("instruction 5 of 12")


def test_a_whole_set_does_not_lag(open_report: Any) -> None:
    """805 rows of 2,000 characters an answer: filter, search, order and next row each take less than a moment."""
    judged = [row._replace(output=row.output * 40, reference=row.reference * 40) for row in rows(805)]
    opened = open_report(judged)
    taken = opened.page.evaluate(
        """() => {
            const best = (action) => Math.min(...[0, 1, 2, 3, 4].map(() => {
                const start = performance.now();
                action();
                document.body.getBoundingClientRect();
                return performance.now() - start;
            }));
            const search = document.getElementById("search");
            const type = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
            const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
            const order = document.getElementById("order");
            const sort = (how) => { order.value = how; order.dispatchEvent(new Event("change")); };
            return {
                search: best(() => type("says 80")),
                clear: best(() => type("")),
                filter: best(() => { key("2"); key("1"); }) / 2,
                sort: best(() => { sort("lost"); sort("given"); }) / 2,
                next: best(() => key("j")),
            };
        }"""
    )
    assert {name: time for name, time in taken.items() if time > FRAME} == {}


@pytest.mark.parametrize("width", [1400, 420])
def test_nothing_is_wider_than_the_screen(open_report: Any, width: int) -> None:
    """Long words without spaces wrap, on a wide screen and on a telephone's."""
    judged = [row._replace(instruction="x" * 3000, output="y" * 3000, reference="z" * 3000) for row in rows(12)]
    opened = open_report(judged)
    opened.page.set_viewport_size({"width": width, "height": 900})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


HOSTILE_MARKDOWN = (
    "[click](javascript:window.pwned=1) ![x](https://evil.example/x.png) <https://evil.example>\n\n"
    "# <img src=x onerror=window.pwned=1>\n\n- <script>window.pwned=1</script>\n\n"
    "```html\n<svg onload=window.pwned=1>\n```\n\n| <b>a</b> | b |\n|---|---|\n| `<i>` | **<u>c</u>** |\n\n> </div></section>"
)


def test_markdown_is_rendered_and_never_markup(open_report: Any) -> None:
    """Headings, lists, code and tables are shown as such; what a model writes makes no link, picture or element."""
    judged = [
        rows(1)[0]._replace(output=HOSTILE_MARKDOWN, reference="# T\n\n1. *a*\n2. **b**\n   - c\n\n```\nx  y\n```")
    ]
    opened = open_report(judged)
    tags = "all => [...new Set(all.map(one => one.tagName))].sort()"
    assert opened.page.locator("#output *").evaluate_all(tags) == sorted(
        ["P", "SPAN", "UL", "LI", "PRE", "CODE", "DIV", "TABLE", "TR", "TH", "TD", "STRONG", "BLOCKQUOTE"]
    )
    assert "click (javascript:window.pwned=1)" in opened.text("#output")
    assert opened.text("#output .heading") == "<img src=x onerror=window.pwned=1>"
    assert opened.text("#output pre") == "<svg onload=window.pwned=1>"
    assert opened.text("#output td strong") == "<u>c</u>"
    assert opened.page.evaluate("window.pwned") is None
    assert [url.split(":")[0] for url in opened.asked] == ["file"]
    assert opened.text("#against .h1") == "T"
    assert opened.page.locator("#against ol > li").all_text_contents() == ["a", "bc"]
    assert opened.text("#against ol ul li") == "c"
    assert opened.text("#against em") == "a"
    assert opened.text("#against pre code") == "x  y"
    opened.page.click("#plain")
    assert opened.text("#output") == HOSTILE_MARKDOWN
    assert opened.complaints == []


@pytest.mark.parametrize("text", ["`" * 20_000, "*a" * 20_000, "[" * 20_000, "- " * 5_000, "> " * 5_000, "|" * 20_000])
def test_no_answer_stops_the_page(open_report: Any, text: str) -> None:
    """Twenty thousand marks of one kind are shown within two seconds."""
    opened = open_report([rows(1)[0]._replace(output=text + "x")])
    taken = opened.page.evaluate(
        "() => { const start = performance.now(); show(rows[0]); return performance.now() - start; }"
    )
    assert taken < 2000
    assert opened.text("#output").strip()


def test_the_judges_words_and_what_it_was_sent(open_report: Any) -> None:
    """By order: its words, its letter, its log-probabilities, and the prompt with both answers at their places."""
    top = [{"token": "M", "logprob": -0.1}, {"token": "m", "logprob": -2.5}, {"token": "?", "logprob": None}]
    raw = {
        "reference_first": {
            "message": {"content": "M"},
            "logprobs": {"content": [{"token": "M", "top_logprobs": top}]},
        },
        "answer_first": {"letters": ["m", "M"], "answers": ["First.\n\nm", {"message": {"content": "Second: M"}}]},
    }
    judged = [row._replace(raw=raw, output="mine {output_1}") for row in rows(1)]
    prompt = [("system", "Judge {instruction} well."), ("user", "A: {output_1} B: {output_2}")]
    opened = open_report(judged, prompt)
    assert opened.page.locator("#said summary").all_text_contents() == [
        "The judge's words, reference shown first",
        "Log-probabilities, reference shown first",
        "The judge's words, model shown first, vote 1: m",
        "The judge's words, model shown first, vote 2: M",
        "The prompt that was sent, reference shown first",
        "The prompt that was sent, model shown first",
    ]
    assert opened.page.locator("#said pre").all_text_contents() == [
        "M",
        "First.\n\nm",
        "Second: M",
        f"system\nJudge {judged[0].instruction} well.\n\nuser\nA: Reference says 1.  B: mine {{output_1}}",
        f"system\nJudge {judged[0].instruction} well.\n\nuser\nA: mine {{output_1}} B: Reference says 1. ",
    ]
    assert opened.page.locator("#said tr").all_text_contents() == ['"M"-0.100090.5%', '"m"-2.50008.21%', '"?"–0%']


def test_a_person_votes_blind_and_sees_the_agreement(open_report: Any) -> None:
    """Before the vote nothing tells who wrote what, or what the judge said; then agreement and Cohen's kappa count."""
    opened = open_report(rows(12))
    page = opened.page
    page.keyboard.press("b")
    sides: dict[str, str] = {}
    for place, vote in enumerate(["won", "won", "drawn", "won", "lost", "won"], 1):
        assert opened.text("#place").startswith(f"instruction {place} ")
        assert page.locator("#pair h3").all_text_contents() == ["first", "second"]
        assert (opened.text("#verdict"), opened.text("#told"), page.is_visible("#said")) == ("", "", False)
        assert not page.is_visible("#filters")
        assert not page.is_visible("#list .rate")
        first = "won" if "Model says" in str(page.locator("#pair .answer").first.text_content()) else "lost"
        sides[first] = first
        page.keyboard.press("e" if vote == "drawn" else "f" if vote == first else "s")
        assert opened.text("#verdict") != ""
        page.keyboard.press("j")
    assert len(sides) == 2, "neither answer always stands first"
    # The judge: won, lost, drawn, failed, lost, won. Alike: 4 of 5; by chance 3/5*2/5 + 1/5*2/5 + 1/5*1/5.
    kappa = (4 / 5 - 9 / 25) / (1 - 9 / 25)
    assert opened.text("#agreement") == f"6 votes; you and the judge agree on 4 of 5, kappa {kappa:.2f}"


def test_the_rows_that_are_shown_are_exported(open_report: Any) -> None:
    """As JSON and as CSV, in which no cell is a formula."""
    judged = [row._replace(output='=1+1, "x"') for row in rows(6)]
    opened = open_report(judged)
    opened.page.keyboard.press("2")
    with opened.page.expect_download() as saved:
        opened.page.click("#json")
    found = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert [(row["number"], row["preference"], row["output"]) for row in found] == [
        (1, 1.9, '=1+1, "x"'),
        (6, 2.0, '=1+1, "x"'),
    ]
    with opened.page.expect_download() as saved:
        opened.page.click("#csv")
    assert saved.value.suggested_filename == "answers.csv"
    with Path(saved.value.path()).open(encoding="utf-8", newline="") as file:
        table = [*csv.DictReader(file)]
    assert [(row["number"], row["output"]) for row in table] == [("1", '\'=1+1, "x"'), ("6", '\'=1+1, "x"')]


def test_nothing_is_cut_on_a_telephone(open_report: Any) -> None:
    """At 420 pixels no box holds more than it shows, and every letter of a picture is inside it."""
    opened = open_report(rows(60))
    opened.page.set_viewport_size({"width": 420, "height": 900})
    cut = """all => all.filter(one => !one.closest("#list, svg") && one.scrollWidth > one.clientWidth + 1
        && getComputedStyle(one).display !== "inline").map(one => one.outerHTML.slice(0, 80))"""
    assert opened.page.locator("body *").evaluate_all(cut) == []
    outside = """all => all.filter(one => { const box = one.getBoundingClientRect();
        const svg = one.ownerSVGElement.getBoundingClientRect();
        return box.left < svg.left - 1 || box.right > svg.right + 1; }).map(one => one.textContent)"""
    assert opened.page.locator("svg.narrow text").evaluate_all(outside) == []
    assert opened.page.locator("svg.wide").first.is_hidden()
