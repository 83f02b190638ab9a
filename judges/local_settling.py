"""How a local judge is asked: log-probabilities where they tell anything, else its words, else not at all."""

from kto_release import console
from kto_release.engines import Engines
from kto_release.errors import JudgeError
from kto_release.files import read_record, write_record
from kto_release.judges.judge import Load
from kto_release.judges.local import LocalJudge
from kto_release.judges.prompt import load_prompt
from kto_release.judges.trial import (
    READABLE,
    TrialRecord,
    in_words,
    is_noise,
    is_opposite,
    record_of,
    show,
    trial_file,
    tried,
)
from kto_release.models import locate
from kto_release.recipe import LocalJudge as Section
from kto_release.run import Run

TRIAL_TOKENS = 1024
"""Most tokens of an answer to a small question: one that thinks longer about those is no judge on this machine."""


def open_judge(section: Section, run: Run, pool: Engines, load: Load | None, *, again: bool) -> LocalJudge:
    """The judge of this section, tried where the recipe leaves it open how to ask; "initial" is the run's own model.

    Raises `JudgeError` where neither its log-probabilities nor its words hold a verdict.
    """
    prompt = load_prompt(section.prompt, section.letters)
    initial = run.recipe.model
    own = section.model == "initial"
    local = locate(initial.base, initial.revision) if own else locate(section.model, section.revision)

    def made(*, words: bool, trial: bool = False) -> LocalJudge:
        asked = section.model_copy(update={"votes": 1}) if trial else section
        trusted = own and initial.trust_remote_code
        written = TRIAL_TOKENS if trial else None
        return LocalJudge(asked, local, prompt, pool, words=words, written=written, trust_remote_code=trusted)

    words = section.verdict == "text" or (section.verdict == "auto" and section.votes > 1)
    judge = made(words=words)
    if (section.verdict != "auto" or words) and not again:
        return judge
    ways = [words] if section.verdict != "auto" or words else [False, True]
    path = trial_file(run, judge.facts.name, [section.model_dump(exclude={"swap"}), judge.determines])
    record = None if again else read_record(path, TrialRecord)
    if record is None:
        console.say(f"asking {judge.facts.model} five small pairs in both orders")
        record = _trial([made(words=way, trial=True) for way in ways])
        write_record(path, record)
        show(record, judge.facts.model)
    if load is not None and again:
        console.say(judge.priced(load))
    judge = made(words=record.words)
    judge.trial = in_words(record)
    return judge


def _trial(ways: list[LocalJudge]) -> TrialRecord:
    because = list[str]()
    for judge in ways:
        words = judge.facts.words
        try:
            found = tried(judge)
        except JudgeError as error:  # letters that are no tokens: its words may hold them
            if words or len(ways) == 1:
                raise
            because.append(error.problem)
            continue
        if is_opposite(found):
            because.append("it prefers the worse answer: are the prompt's letters exchanged?")
            break
        if len(found.verdicts) >= READABLE and not is_noise(found):
            return record_of(
                found, words=words, request=judge.facts.parameters, because=because[0] if because else None
            )
        because.append(found.why_not)
    raise JudgeError(
        f"the judge {ways[0].facts.model} can't be used: {'; and in words: '.join(because)}",
        expected="a model that answers with a letter",
        todo="take another model"
        if ways[0].facts.parameters.get("chat_template_kwargs")
        else "where it thinks first: eval.judge.chat_template_kwargs: {enable_thinking: false}; else another",
    )
