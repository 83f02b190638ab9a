"""A local judge that answers in words: what it thinks is left out, votes are counted, and a trial says how to ask it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kto_release.engines import Completion, Engine, Engines, Model, Request, Sampling
from kto_release.errors import JudgeError
from kto_release.judges.asking import Journal, Pair, judge_pairs
from kto_release.judges.local import LocalJudge
from kto_release.judges.local_settling import open_judge
from kto_release.judges.prompt import load_prompt
from kto_release.judges.trial import PAIRS
from kto_release.models import locate
from kto_release.recipe import EngineSection
from kto_release.recipe import LocalJudge as Section
from kto_release.recipe_file import load_recipe
from kto_release.run import Run


class Scripted(Engines):
    """Engines whose one engine gives `answers` by turns, or the right one, and a mass on the letters."""

    def __init__(self, tokenizer: Any, answers: Sequence[str], logp: float = -30.0) -> None:
        super().__init__(EngineSection(kind="transformers"), Path("none"))
        self.tokenizer, self.answers, self.logp = tokenizer, answers, logp
        self.asked: list[tuple[Request, Sampling]] = []

    def get(self, model: Model, longest: int) -> Engine:
        del model, longest
        return self  # type: ignore[return-value]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        for index, request in enumerate(requests):
            text = self.answers[len(self.asked) % len(self.answers)]
            self.asked.append((request, sampling))
            ids = self.tokenizer(text.replace("RIGHT", self.right(request)), add_special_tokens=False)["input_ids"]
            cut = len(ids) > sampling.max_tokens
            yield index, Completion(ids[: sampling.max_tokens], "length" if cut else "stop")

    def right(self, request: Request) -> str:
        """The letter of the better answer in the trial's pairs."""
        text = self.tokenizer.decode(request.ids)
        return next(("m" if text.find(a) < text.find(b) else "M" for _, a, b in PAIRS if a in text and b in text), "m")

    def next_logprobs(self, prompts: Sequence[list[int]], tokens: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        for index, _ in enumerate(prompts):
            yield index, [self.logp - 0.1 * place for place, _ in enumerate(tokens)]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Run:
    (tmp_path / "recipe.yaml").write_text(
        f"name: trial\nmodel: {{base: {tiny_model}, template: base}}\ndata: {{source: none.jsonl, partitions: 1}}\n"
    )
    opened = Run.open(load_recipe(tmp_path / "recipe.yaml", []), tmp_path / "runs")
    opened.create()
    return opened


def test_votes_in_words_are_a_share_and_thoughts_are_left_out(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Two of three votes are for the first answer; every vote has a seed of its own."""
    pool = Scripted(tokenizer, ["<think>M? no</think>\n\nm", "**M**", "Output (m)"])
    section = Section(kind="local", model="tiny", verdict="text", votes=3, swap=False, max_tokens=300)
    judge = LocalJudge(section, locate(str(tiny_model)), load_prompt("alpaca_eval"), pool)
    result = judge_pairs(judge, [Pair("Say a.", "", 0, "a", "b")], Journal(tmp_path / "judge"))
    [verdict] = result.verdicts[0].values()
    assert verdict.first == pytest.approx(2 / 3)
    assert verdict.raw is not None
    assert verdict.raw["letters"] == ["m", "M", "m"]
    assert len({request.seed for request, _ in pool.asked}) == 3
    assert {sampling.max_tokens for _, sampling in pool.asked} == {300}
    assert (judge.facts.words, judge.facts.votes) == (True, 3)


def test_thoughts_that_never_end_are_no_verdict(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    pool = Scripted(tokenizer, ["<think>m or M"])
    section = Section(kind="local", model="tiny", verdict="text", swap=False)
    judge = LocalJudge(section, locate(str(tiny_model)), load_prompt("alpaca_eval"), pool)
    result = judge_pairs(judge, [Pair("Say a.", "", 0, "a", "b")], Journal(tmp_path / "judge"))
    assert result.rows[0].failure == "the answer ends before a verdict, at the most tokens that it may have"
    assert result.unreadable == 1


@pytest.mark.parametrize(("logp", "words"), [(-3.0, False), (-30.0, True)])
def test_a_trial_says_how_a_local_judge_is_asked(run: Run, tokenizer: Any, logp: float, words: bool) -> None:
    """By log-probabilities where the letters have any mass, else by its words; kept, and not asked again."""
    section = Section(kind="local", model="initial")
    pool = Scripted(tokenizer, ["<think>M? m?</think>RIGHT"], logp)
    judge = open_judge(section, run, pool, None, again=False)
    assert judge.facts.words == words
    asked = len(pool.asked)
    assert asked == (10 if words else 0)
    assert open_judge(section, run, pool, None, again=False).facts == judge.facts
    assert len(pool.asked) == asked


def test_a_local_judge_that_gives_no_verdict_is_refused(run: Run, tokenizer: Any) -> None:
    """After one answer in words."""
    pool = Scripted(tokenizer, ["I could not say."])
    with pytest.raises(JudgeError) as caught:
        open_judge(Section(kind="local", model="initial"), run, pool, None, again=False)
    assert (
        "of the probability is on the letters; and in words: no one verdict ('m' or 'M') in 'I could not say.'"
        in str(caught.value)
    )
    assert len(pool.asked) == 1


def test_variables_reach_the_judges_template(tiny_model: Path, tokenizer: Any) -> None:
    """And they are a part of the judge's facts."""
    section = Section(kind="local", model="tiny", verdict="text", chat_template_kwargs={"enable_thinking": False})
    judge = LocalJudge(section, locate(str(tiny_model)), load_prompt("alpaca_eval"), Scripted(tokenizer, ["m"]))
    assert judge.facts.parameters["chat_template_kwargs"] == {"enable_thinking": False}
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ messages[0].content }}{% if enable_thinking is false %}quiet{% endif %}"
        from kto_release.judges.local import prompt_ids

        said = [{"role": "user", "content": "hi"}]
        assert tokenizer.decode(prompt_ids(tokenizer, said, {"enable_thinking": False})) == "hiquiet"
        assert tokenizer.decode(prompt_ids(tokenizer, said)) == "hi"
    finally:
        tokenizer.chat_template = own
