"""How an endpoint's judge is asked: log-probabilities where they tell anything, else its words, else not at all."""

from kto_release import console
from kto_release.engines import Engines
from kto_release.files import read_record, write_record
from kto_release.judges.forms import Form, adapted, form_of, wants_words
from kto_release.judges.judge import Load, Verdict
from kto_release.judges.openai import OpenAIJudge
from kto_release.judges.prompt import JudgePrompt, load_prompt
from kto_release.judges.trial import (
    GOOD_MASS,
    READABLE,
    TrialRecord,
    Tried,
    is_noise,
    is_opposite,
    record_of,
    show,
    trial_file,
    tried,
)
from kto_release.recipe import OpenAIJudge as Section
from kto_release.run import Run

ADAPTATIONS = 4
"""So often a request is changed as the endpoint asks for."""
NOT_ASKED = {
    "api_key_env",
    "swap",
    "concurrency",
    "timeout",
    "max_retries",
    "price_per_million_input",
    "price_per_million_output",
    "max_cost",
    "batch",
}
"""Keys of the recipe that change nothing of what a judge says to one question."""


def open_judge(section: Section, run: Run, pool: Engines, load: Load | None, *, again: bool) -> OpenAIJudge:
    """The judge of this section: it needs no engine."""
    del pool
    return settled(section, run, load, again=again)


def settled(section: Section, run: Run, load: Load | None, *, again: bool, backoff: float = 0.5) -> OpenAIJudge:
    """The judge of a section, tried where the recipe leaves it open how to ask, or where `again` says so.

    Raises `JudgeError` where it can't be used, or where even the least that it may cost is above max_cost.
    """
    prompt = load_prompt(section.prompt, section.letters)
    judge = OpenAIJudge(section, prompt, backoff=backoff)
    if load is not None:
        judge.refuse_dear(Load(load.questions, 0))  # before the first question is paid
    if section.batch == "anthropic" or (section.verdict != "auto" and not again):
        return judge  # Anthropic's own form is asked in files alone
    determines = [section.model_dump(exclude=NOT_ASKED), prompt.sha256, judge.determines["address"]]
    path = trial_file(run, judge.facts.name, determines)
    record = None if again else read_record(path, TrialRecord)
    if record is None:
        console.say(f"asking {judge.facts.model} five small pairs in both orders")
        record = _trial(section, prompt, backoff)
        write_record(path, record)
        show(record, judge.facts.model)
        judge = OpenAIJudge(section, prompt, Form(record.words, record.request), trial=record, backoff=backoff)
        if load is not None:
            console.say(f"  for this evaluation: {judge.priced(load)}")
            judge.refuse_dear(Load(load.questions, 0))
        return judge
    return OpenAIJudge(section, prompt, Form(record.words, record.request), trial=record, backoff=backoff)


def _trial(section: Section, prompt: JudgePrompt, backoff: float) -> TrialRecord:
    """Try log-probabilities, then words, as far as the recipe allows either. Raises `JudgeError`."""
    because, weak = list[str](), None
    ways = [True] if wants_words(section) else [False] if section.verdict == "logprobs" else [False, True]
    for words in ways:
        judge, form, found = _adapted(section, prompt, backoff, words=words)
        if is_opposite(found):
            raise judge.unusable(
                f"it prefers the worse answer in {len(found.outcomes) - found.right} of {len(found.outcomes)} small "
                "questions: are the prompt's letters exchanged?"
            )
        said = because[0] if because else None
        if words and len(found.verdicts) >= READABLE:
            return record_of(found, words=True, request=form.request, because=said)
        if not words and len(found.verdicts) >= READABLE and not is_noise(found):
            weak = record_of(found, words=False, request=form.request, because=None)
            if (found.mass or 0) >= GOOD_MASS or len(ways) == 1:
                return weak
        because.append(found.why_not)
    if weak is not None:
        return weak
    if len(because) == 1:
        raise judge.unusable(because[0])
    raise judge.unusable(f"{because[1]}; and with log-probabilities: {because[0]}")


def _adapted(section: Section, prompt: JudgePrompt, backoff: float, *, words: bool) -> tuple[OpenAIJudge, Form, Tried]:
    """Ask in one way, changed as far as the endpoint asks for. Raises `JudgeError` where it does not answer."""
    form = form_of(section, prompt.letters, words=words)
    for _ in range(ADAPTATIONS):
        judge = OpenAIJudge(section.model_copy(update={"votes": 1}), prompt, form, backoff=backoff)
        first = judge.probe()
        found = tried(judge) if isinstance(first, Verdict) else Tried({"probe": first}, 0)
        failure = found.failure
        if failure is not None and failure.passing and not found.verdicts:
            raise judge.unusable(failure.reason, passing=True)
        other = adapted(form, section, failure.reason) if failure is not None else None
        if other is None:
            break
        form = other
    return judge, form, found
