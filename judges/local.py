"""A judge that runs here, in the engine that also generates: by the log-probabilities of its letters, or its words."""

import hashlib
import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kto_release.digests import weights_digest
from kto_release.engines import Engines, Model, Request, Sampling, choose, context_length, version_of
from kto_release.errors import JudgeError, ModelError
from kto_release.judges.judge import Done, Failure, Load, Question, Questions, Verdict, determining
from kto_release.judges.prompt import JudgePrompt, Letters
from kto_release.judges.voting import together
from kto_release.judges.words import read_letter, shortened
from kto_release.models import LocalModel, load_tokenizer, stored_weights
from kto_release.recipe import LocalJudge as Section
from kto_release.records import JudgeFacts
from kto_release.templates import load_template, render_text, set_template, stop_ids
from kto_release.templates.cutting import special_pattern
from kto_release.templates.thoughts import answer_of

TEXT_TOKENS = 2048
"""Most tokens of an answer in words, thoughts included, where the recipe says nothing."""
TEMPERATURE, TOP_P = 0.6, 0.95
"""Of words: what models that think are made for; greedy, they repeat themselves."""


class LocalJudge:
    """See `Judge`. It shares the device with what generates, so it is loaded at its first question."""

    beside = False
    trial: str | None = None

    def __init__(
        self,
        section: Section,
        local: LocalModel,
        prompt: JudgePrompt,
        pool: Engines,
        *,
        words: bool | None = None,
        written: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._prompt, self._pool, self._max_length = prompt, pool, section.max_length
        words = section.verdict == "text" if words is None else words
        self._votes = section.votes if words else 1
        self._written = written or section.max_tokens or TEXT_TOKENS
        self._variables = section.chat_template_kwargs
        self._tokenizer = load_tokenizer(local, trust_remote_code=trust_remote_code)
        template = load_template("base", self._tokenizer)
        set_template(self._tokenizer, template)
        self.occupies = Model(local.path, stored_weights(local.path).dtype, trust_remote_code)
        engine = choose(pool.section)
        self.facts = JudgeFacts(
            kind="local",
            model=local.hub_id or local.name,
            name=local.name.rsplit("/", 1)[-1],
            endpoint=None,
            prompt=prompt.name,
            prompt_sha256=prompt.sha256,
            swap=section.swap,
            parameters={
                "weights": weights_digest(local.path),
                "revision": local.revision,
                "dtype": self.occupies.dtype,
                "template": template.sha256,
                "engine": f"{engine} {version_of(engine)}",
                "max_length": section.max_length,
                **({"chat_template_kwargs": self._variables} if self._variables else {}),
                **({"max_tokens": self._written, "temperature": TEMPERATURE, "top_p": TOP_P} if words else {}),
            },
            official=False,
            words=words,
            votes=self._votes,
        )
        self.determines = determining(self.facts)

    @property
    def longest(self) -> int:
        """Most tokens that an engine has to take: of a prompt, and of the answer where that is words."""
        limit = context_length(self.occupies.folder)
        wanted = self._max_length + (self._written if self.facts.words else 0)
        return min(wanted, limit) if limit else wanted

    @property
    def _longest_prompt(self) -> int:
        return min(self._max_length, self.longest)

    def affords(self, *_: int) -> bool:
        """See `Judge`. It costs time only."""
        return True

    def priced(self, load: Load) -> str:
        """See `Judge`."""
        return f"{self.facts.model}: {load.questions} judgements on this machine"

    def prepare(self, questions: int, characters: int) -> None:
        """See `Judge`. Nothing is paid here, and what can go wrong shows when the model is loaded."""

    def ask(self, questions: Questions, done: Done) -> None:
        """See `Judge`."""
        fitting: list[tuple[Question, list[int]]] = []
        for question in questions:
            messages = self._prompt.fill(question.instruction, question.first, question.second)
            ids = prompt_ids(self._tokenizer, messages, self._variables)
            if len(ids) < self._longest_prompt:
                fitting.append((question, ids))
            else:
                done(question, Failure(f"a prompt of {len(ids)} tokens, where {self._longest_prompt} are allowed"))
        if fitting and self.facts.words:
            self._ask_words(fitting, done)
        elif fitting:
            self._ask_letters(fitting, done)

    def _ask_letters(self, asked: Sequence[tuple[Question, list[int]]], done: Done) -> None:
        letters = letter_tokens(self._tokenizer, self._prompt.letters)
        tokens = sorted({token for variants in letters for token in variants})
        engine = self._pool.get(self.occupies, self.longest)
        start = time.monotonic()
        for index, logps in engine.next_logprobs([ids for _, ids in asked], tokens):
            now = time.monotonic()
            found = dict(zip(tokens, logps, strict=True))
            done(asked[index][0], _verdict(found, letters, self._prompt.letters, now - start))
            start = now

    def _ask_words(self, asked: Sequence[tuple[Question, list[int]]], done: Done) -> None:
        """Every question as often as there are votes; one without a verdict in any of them has none."""
        requests = [Request(ids, _seed(question, vote)) for question, ids in asked for vote in range(self._votes)]
        stops = stop_ids(self._tokenizer, self.occupies.folder)
        sampling = Sampling(TEMPERATURE, TOP_P, None, self._written, stops)
        votes: dict[int, list[Verdict | Failure]] = {}
        start = time.monotonic()
        engine = self._pool.get(self.occupies, self.longest)
        for index, completion in engine.generate(requests, sampling):
            place = index // self._votes
            cut = completion.finish == "length"
            tokens = (len(requests[index].ids), len(completion.ids))
            said = answer_of(self._tokenizer, completion.ids, requests[index].ids)
            votes.setdefault(place, []).append(
                _of_words(said.text, self._prompt.letters, tokens, cut=cut or not said.closed)
            )
            if len(votes[place]) == self._votes:
                now = time.monotonic()
                done(asked[place][0], _counted(votes.pop(place), now - start))
                start = now


def letter_tokens(tokenizer: Any, letters: Letters = Letters()) -> list[list[int]]:  # noqa: B008 - it is immutable
    """For each letter, every token that spells it: alone, after a space, as a byte. Raises `JudgeError`."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    special = set(tokenizer.all_special_ids)
    found = [
        [token for token, text in enumerate(texts) if text.strip() == letter and token not in special]
        for letter in letters.all
    ]
    missing = [letter for letter, tokens in zip(letters.all, found, strict=True) if not tokens]
    if missing:
        raise JudgeError(
            f"the judge's tokenizer has no token for {' and '.join(map(repr, missing))}",
            todo="take other letters, or eval.judge.verdict: text",
        )
    return found


def _verdict(
    logps: Mapping[int, float], tokens: Sequence[Sequence[int]], letters: Letters, seconds: float
) -> Verdict | Failure:
    masses = [math.fsum(math.exp(logps[token]) for token in variants) for variants in tokens]
    mass = math.fsum(masses)
    if not (mass > 0 and math.isfinite(mass)):
        return Failure(f"no probability on any answer letter ({mass})")
    top = [
        {"token": letter, "logprob": math.log(value) if value > 0 else None}
        for letter, value in zip(letters.all, masses, strict=True)
    ]
    likeliest = letters.all[masses.index(max(masses))]
    raw = {"logprobs": {"content": [{"token": likeliest, "top_logprobs": top}]}}
    first = (masses[0] + (masses[2] / 2 if len(masses) > 2 else 0.0)) / mass
    return Verdict(first, min(mass, 1.0), raw, seconds=seconds, price=0.0)


def _of_words(text: str, letters: Letters, tokens: tuple[int, int], *, cut: bool) -> Verdict | Failure:
    letter = read_letter(text, letters, cut=cut)
    if letter is None:
        ended = "the answer ends before a verdict, at the most tokens that it may have"
        return Failure(ended if cut else f"no one verdict ({letters}) in {shortened(text)!r}", 1, 1)
    raw = {"letters": [letter], "answers": [text]}
    return Verdict(letters.share(letter), None, raw, tokens=tokens, price=0.0)


def _counted(votes: Sequence[Verdict | Failure], seconds: float) -> Verdict | Failure:
    verdicts = [vote for vote in votes if isinstance(vote, Verdict)]
    failed = [vote for vote in votes if isinstance(vote, Failure)]
    if failed:
        return failed[0]._replace(unreadable=len(failed))
    return together(verdicts)._replace(seconds=round(seconds, 3))


def _seed(question: Question, vote: int) -> int:
    """A vote's own seed, of 32 bits: it depends on nothing but the question and the vote's number."""
    return int.from_bytes(hashlib.sha256(f"{question.key} {vote}".encode()).digest()[:4])


def prompt_ids(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any] | None = None
) -> list[int]:
    """Ids of a question, whose structure is the template's alone.

    Text in a message that the tokenizer would read as a special token (<|im_end|>) becomes ordinary tokens. Where there
    is none, these are the ids that the model always gets.
    """
    special = special_pattern(tokenizer)
    try:
        text = render_text(tokenizer, messages, prompt=True, variables=variables)
    except ModelError:
        # Some templates know no system message; its text then opens the user's.
        system, user, *rest = messages
        messages = [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]
        text = render_text(tokenizer, messages, prompt=True, variables=variables)
    if not any(special.search(message["content"]) for message in messages):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return _split_ids(tokenizer, messages, special, variables)


def _split_ids(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    special: re.Pattern[str],
    variables: Mapping[str, Any] | None,
) -> list[int]:
    """The template is rendered around stand-ins, so that only its own special tokens are in the text and are found."""
    stand_ins = [f"slot{secrets.token_hex(8)}" for _ in messages]
    contents = {stand_in: message["content"] for stand_in, message in zip(stand_ins, messages, strict=True)}
    blank = [{**message, "content": stand_in} for stand_in, message in zip(stand_ins, messages, strict=True)]
    skeleton = render_text(tokenizer, blank, prompt=True, variables=variables)
    place = re.compile("|".join(stand_ins))
    ids: list[int] = []
    end = 0
    for match in [*special.finditer(skeleton), None]:
        between = skeleton[end : match.start() if match else len(skeleton)]
        filled = place.sub(lambda found: contents[found[0]], between)
        if filled:
            ids += tokenizer(filled, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if match:
            ids.append(tokenizer.convert_tokens_to_ids(match[0]))
            end = match.end()
    return ids
