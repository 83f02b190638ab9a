"""A judge is tried before anything is paid for: how it is asked, what it is, and when it is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from provider import Answer, Asked, Profile, Provider, likely, provider, refuses, says, with_top

from kto_release.errors import JudgeError
from kto_release.files import read_jsonl
from kto_release.judges.account import account
from kto_release.judges.asking import Journal, Judgements, Pair, judge_pairs
from kto_release.judges.judge import Load
from kto_release.judges.openai import OpenAIJudge
from kto_release.judges.settling import settled
from kto_release.judges.trial import ASKED, PAIRS
from kto_release.recipe import OpenAIJudge as Section
from kto_release.recipe_file import load_recipe
from kto_release.run import Run

MARKS = [(5, 3), (5, 8), (5, 5), (5, 9), (5, 2)]
"""Of the reference's and the model's answers: two wins, two losses, and a pair of equals."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "recipe.yaml").write_text(
        "name: trial\nmodel: {base: none/none, template: base}\ndata: {source: none.jsonl, partitions: 1}\n"
    )
    opened = Run.open(load_recipe(tmp_path / "recipe.yaml", []), tmp_path / "runs")
    opened.create()
    return opened


def pairs() -> list[Pair]:
    return [
        Pair(f"Question {n}?", "", 0, f"reference {n} (q={ours})", f"answer {n} (q={theirs})")
        for n, (ours, theirs) in enumerate(MARKS)
    ]


def section(server: Provider, **keys: Any) -> Section:
    return Section(
        **{"kind": "openai", "model": "judge-1", "base_url": server.url, "timeout": 5, "max_retries": 2, **keys}
    )


def opened(server: Provider, run: Run, **keys: Any) -> OpenAIJudge:
    return settled(section(server, **keys), run, Load(5, 0), again=False, backoff=0.001)


def judged(server: Provider, run: Run, **keys: Any) -> tuple[OpenAIJudge, Judgements]:
    judge = opened(server, run, **keys)
    return judge, judge_pairs(judge, pairs(), Journal(run.path / "judge"))


def soft(asked: Asked) -> Answer:
    return with_top(asked, likely(asked))


def needs_completion_tokens(asked: Asked) -> Answer:
    if "max_tokens" in asked.body:
        return refuses("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    if "logprobs" in asked.body:
        return refuses("You are not allowed to request logprobs from this model", 403)
    return says("", "length") if asked.body["max_completion_tokens"] < 64 else says(asked.letter)


def thinks(asked: Asked) -> Answer:
    """A served model whose first token is <think>; in words, it thinks and then says its letter."""
    if "logprobs" in asked.body:
        top = [
            {"token": "<think>", "logprob": -1e-8},
            {"token": "m", "logprob": -22.0},
            {"token": "M", "logprob": -23.0},
        ]
        return with_top(asked, top)
    if asked.body["max_tokens"] < 100:
        return says("<think>\nM could be, but", "length")
    return says(f"<think>\nIs it M or m? Let me see.\n</think>\n\n{asked.letter}")


def thinks_apart(asked: Asked) -> Answer:
    if "logprobs" in asked.body:
        return refuses("logprobs are not supported in thinking mode")
    return says(f"Output ({asked.letter})", reasoning_content="M? m?")


def one_alternative(asked: Asked) -> Answer:
    return with_top(asked, likely(asked)[:1])


def made_up(asked: Asked) -> Answer:
    other = "M" if asked.letter == "m" else "m"
    return with_top(asked, [{"token": asked.letter, "logprob": 0}, {"token": other, "logprob": -9999.0}])


def zero_alone(asked: Asked) -> Answer:
    return with_top(asked, [{"token": asked.letter, "logprob": 0.0}])


def all_zero(asked: Asked) -> Answer:
    return with_top(asked, [{"token": "m", "logprob": 0.0}, {"token": "M", "logprob": 0.0}])


def parts(asked: Asked) -> Answer:
    """Content in parts, thoughts among them."""
    return says([{"type": "thinking", "thinking": "M"}, {"type": "text", "text": f"**{asked.letter}**"}])


def fenced_json(asked: Asked) -> Answer:
    return says(f'```json\n{{"explanation": "m and M", "better": "{asked.letter}"}}\n```')


def at_most_five(asked: Asked) -> Answer:
    if asked.body.get("top_logprobs", 0) > 5:
        return refuses("Cannot request more than 5 logprobs.")
    return with_top(asked, likely(asked)[: asked.body.get("top_logprobs", 0)])


SETTLED: dict[str, tuple[Profile, bool, dict[str, Any]]] = {
    "log-probabilities": (soft, False, {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}),
    "five of them": (at_most_five, False, {"max_tokens": 1, "logprobs": True, "top_logprobs": 5}),
    "another name for tokens": (needs_completion_tokens, True, {"max_completion_tokens": 2048}),
    "thinks": (thinks, True, {"max_tokens": 2048}),
    "thinks in a field of its own": (thinks_apart, True, {"max_tokens": 2048}),
    "one alternative": (one_alternative, True, {"max_tokens": 2048}),
    "made up": (made_up, True, {"max_tokens": 2048}),
    "a zero alone": (zero_alone, True, {"max_tokens": 2048}),
    "zeros": (all_zero, True, {"max_tokens": 2048}),
    "parts": (parts, True, {"max_tokens": 2048}),
    "JSON in a fence": (fenced_json, True, {"max_tokens": 2048}),
}


@pytest.mark.parametrize(("profile", "words", "request_"), SETTLED.values(), ids=SETTLED)
def test_auto_finds_out_how_a_judge_can_be_asked(
    run: Run, profile: Profile, words: bool, request_: dict[str, Any]
) -> None:
    """Log-probabilities where they tell anything, else words; all ten are right, and the preferences are the judge's."""
    with provider(profile) as server:
        judge, result = judged(server, run)
    assert judge.trial == "10 of 10 small questions right (a coin: 5), 0 of 5 pairs turned with the order"
    assert account(result, judge.facts, judge.trial).trial == judge.trial
    assert (judge.facts.words, judge.facts.parameters) == (words, request_)
    soft_preferences = [2 - 1 / (1 + math.exp(-0.7 * (ours - theirs))) for ours, theirs in MARKS]
    found = [row.preference for row in result.rows]
    if words:  # of equals, the one that is shown first is preferred
        assert [found[n] for n in (0, 1, 3, 4)] == [1, 2, 2, 1]
    else:
        assert found == pytest.approx(soft_preferences)


def test_a_trial_is_kept_and_not_asked_again(run: Run) -> None:
    """The second opening sends nothing, and asks in the same way."""
    with provider(thinks) as server:
        first = opened(server, run)
        before = len(server.bodies)
        second = opened(server, run)
        assert len(server.bodies) == before
    assert second.facts == first.facts
    assert second.trial == first.trial


def test_a_judge_that_gives_no_verdict_in_either_way_is_refused_at_once(run: Run) -> None:
    """Two questions by log-probabilities, and one in words, three times: nothing else is asked."""

    def noise(asked: Asked) -> Answer:
        return thinks(asked) if "logprobs" in asked.body else says("<think>", "length")

    with provider(noise) as server:
        with pytest.raises(JudgeError) as caught:
            opened(server, run)
        assert len(server.bodies) == 2 + 3
        host = server.url.removeprefix("http://").removesuffix("/v1")
    assert str(caught.value) == (
        f"the judge judge-1 at {host} can't be used: the answer ends before a verdict, at the most tokens that it may "
        "have; and with log-probabilities: only 3.8e-10 of the probability is on the letters\n"
        "  expected: one of its letters as its verdict ('m' or 'M')\n"
        "  to do: check base_url and model, or give it more room in eval.judge.max_tokens "
        "or less to think (reasoning_effort, chat_template_kwargs)"
    )
    assert not list(run.path.glob("eval/trials/*"))


def test_a_judge_that_says_the_opposite_is_refused(run: Run) -> None:
    """Letters that are exchanged would turn the score round."""
    said = r"it prefers the worse answer in 10 of 10 small questions"
    with (
        provider(lambda asked: soft(asked._replace(first=1 - asked.first))) as server,
        pytest.raises(JudgeError, match=said),
    ):
        opened(server, run)


def test_a_judge_by_place_is_told_and_not_hidden(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever it is shown first wins: five of ten are right, and every pair turns with the order."""
    with provider(lambda asked: soft(asked._replace(first=0.9))) as server:
        trial = opened(server, run).trial
    assert trial == "5 of 10 small questions right (a coin: 5), 5 of 5 pairs turned with the order"
    said = capfd.readouterr()
    assert trial in said.out
    assert "no better than a coin" in said.err


def test_max_cost_is_held_before_the_trial(run: Run) -> None:
    """Even one token for each question would be too dear: nothing is asked."""
    with provider(soft) as server:
        with pytest.raises(JudgeError, match="nothing was asked"):
            opened(server, run, max_cost=0.001, price_per_million_input=1000, price_per_million_output=1000)
        assert server.bodies == []


def test_no_trial_where_the_recipe_says_how_to_ask(run: Run) -> None:
    with provider(soft) as server:
        assert opened(server, run, verdict="text").facts.words
        assert not opened(server, run, verdict="logprobs").facts.words
        assert server.bodies == []


def test_votes_are_a_share(run: Run) -> None:
    """Three votes for each question; a judge that says M every third time gives a preference of one third."""
    with provider(lambda asked: says("M" if asked.number % 3 == 0 else "m")) as server:
        judge = OpenAIJudge(section(server, verdict="text", votes=3, concurrency=1), _prompt())
        result = judge_pairs(judge, pairs()[:1], Journal(run.path / "judge"))
    [verdict] = result.verdicts[0].values()
    assert verdict.first == pytest.approx(2 / 3)
    assert sorted(verdict.raw["letters"] if verdict.raw else []) == ["M", "m", "m"]
    assert verdict.tokens == (1500, 60)
    assert judge.facts.votes == 3


def _prompt() -> Any:
    from kto_release.judges.prompt import load_prompt

    return load_prompt("alpaca_eval")


def test_a_vote_without_a_verdict_leaves_the_question_without_one(run: Run) -> None:
    """Never a share of fewer votes; and unreadable answers are counted."""
    with provider(lambda asked: says("m" if asked.number <= 2 else "I can't tell")) as server:
        judge = OpenAIJudge(section(server, verdict="text", votes=2, concurrency=1), _prompt())
        result = judge_pairs(judge, pairs()[:1], Journal(run.path / "judge"))
    assert [row.preference for row in result.rows] == [None]
    assert result.rows[0].failure == "no one verdict ('m' or 'M') in \"I can't tell\""
    assert result.unreadable == 3
    assert account(result, judge.facts).unreadable == 1


def test_letters_and_draws_of_a_prompt_of_ones_own(run: Run, tmp_path: Path) -> None:
    """A third letter is a draw; by log-probabilities half of its mass is the first answer's."""
    path = tmp_path / "ab.txt"
    path.write_text("<|im_start|>user\n{instruction} A: {output_1} B: {output_2} Reply A, B or C.\n<|im_end|>")
    with provider(lambda asked: says("C" if asked.first == 0.5 else "A" if asked.first > 0.5 else "B")) as server:
        _, result = judged(server, run, prompt=str(path), letters=["A", "B", "C"], swap=True)
    assert [row.preference for row in result.rows] == [1, 2, 1.5, 2, 1]

    def drawn(asked: Asked) -> Answer:
        third = [{"token": "C", "logprob": math.log(0.5)}]
        halves = [{**one, "logprob": one["logprob"] + math.log(0.5)} for one in likely(asked, ("A", "B"))]
        return with_top(asked, [*third, *halves])

    with provider(drawn) as server:
        judge, result = judged(server, run, prompt=str(path), letters=["A", "B", "C"], endpoint="two", swap=True)
    expected = [1.25 + 0.5 / (1 + math.exp(-0.7 * (theirs - ours))) for ours, theirs in MARKS]
    assert [row.preference for row in result.rows] == pytest.approx(expected)
    assert not judge.facts.words


def test_letters_that_a_prompt_does_not_ask_for_are_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ab.txt"
    path.write_text("<|im_start|>user\n{instruction} A: {output_1} B: {output_2} Reply A or B.\n<|im_end|>")
    exchanged = provider(lambda asked: with_top(asked, likely(asked, ("A", "B"))[:2]))
    with exchanged as server, pytest.raises(JudgeError) as caught:
        opened(server, run, prompt=str(path), verdict="logprobs").prepare(1, 1)
    assert "no answer letter among the likeliest tokens: 'A', 'B'" in str(caught.value)
    assert "to do: name the letters that your prompt asks for in eval.judge.letters, or " in str(caught.value)


def test_json_is_asked_for_where_the_api_can_be_held_to_it(run: Run) -> None:
    with provider(lambda asked: says(json.dumps({"better": asked.letter}))) as server:
        judge, result = judged(server, run, structured=True, max_tokens=64, reasoning_effort="low")
    assert [row.preference for row in result.rows if row.instruction != "Question 2?"] == [1, 2, 2, 1]
    schema = judge.facts.parameters["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"better": {"type": "string", "enum": ["m", "M"]}}
    assert (server.bodies[-1]["max_tokens"], server.bodies[-1]["reasoning_effort"]) == (64, "low")


def test_what_answered_is_recorded_and_a_change_is_said(run: Run) -> None:
    """By the answers' own words; where it stays the same there is no doubt."""

    def changing(asked: Asked) -> Answer:
        status, body = soft(asked)
        late = asked.number > 14
        return status, {**body, "model": "judge-2" if late else "judge-1", "system_fingerprint": "fp"}

    with provider(changing) as server:
        judge, result = judged(server, run, concurrency=1)
    facts = account(result, judge.facts)
    assert [(one.model, one.fingerprint, one.judgements) for one in facts.served] == [
        ("judge-2", "fp", 3),
        ("judge-1", "fp", 2),
    ]
    assert facts.doubts == ["the judge changed within the run, the answering model: judge-2 (3), judge-1 (2)"]
    assert {row["served"]["fingerprint"] for row in read_jsonl(run.path / "judge" / "judgements.jsonl")} == {"fp"}


def counting(most: int) -> Profile:
    """A server that reads four characters for a token, and no more than `most`."""

    def answer(asked: Asked) -> Answer:
        status, body = soft(asked)
        return status, {**body, "usage": {"prompt_tokens": min(most, len(asked.text) // 4), "completion_tokens": 1}}

    return answer


@pytest.mark.parametrize(("most", "cut"), [(100_000, 0), (2000, 4), (150, 4)])
def test_prompts_that_the_server_cut_are_noticed_from_its_count(run: Run, most: int, cut: int) -> None:
    """Four of six prompts have 2,400 tokens and more; the other two are short, and fit almost."""
    long = [Pair(f"Q{n}?", "", 0, "a (q=5)", f"{'word ' * 2000 * (n > 1)}{n} (q={n})") for n in range(6)]
    long = [pair._replace(answer=pair.answer + "more " * 50 * n) for n, pair in enumerate(long)]
    with provider(counting(most)) as server:
        judge = OpenAIJudge(section(server, verdict="logprobs"), _prompt())
        result = judge_pairs(judge, long, Journal(run.path / "judge"))
    facts = account(result, judge.facts)
    assert facts.cut_prompts == cut
    assert len(facts.doubts) == (1 if cut else 0)


def test_a_judge_without_an_opinion_raises_a_doubt(run: Run) -> None:
    with provider(lambda asked: soft(asked._replace(first=0.5))) as server:
        judge = OpenAIJudge(section(server, verdict="logprobs"), _prompt())
        result = judge_pairs(judge, pairs(), Journal(run.path / "judge"))
    assert account(result, judge.facts).doubts == ["the judge calls every one of 5 pairs a draw"]


def test_the_small_questions_are_in_both_orders_and_length_does_not_answer_them() -> None:
    assert len(ASKED) == 10
    assert [(one.first, one.second) for one in ASKED[::2]] == [(one.second, one.first) for one in ASKED[1::2]]
    assert sum(len(better) > len(worse) for _, better, worse in PAIRS) == 2
