"""A judge that runs here: the log-probabilities of the two answer letters, from the engine that also generates."""

import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kto_release.digests import weights_digest
from kto_release.engines import Engines, Model, choose, context_length, version_of
from kto_release.errors import JudgeError, ModelError
from kto_release.judges.judge import Done, Failure, Question, Questions, Verdict, determining
from kto_release.judges.prompt import LETTERS, JudgePrompt, load_prompt
from kto_release.models import LocalModel, load_tokenizer, locate, stored_weights
from kto_release.recipe import LocalJudge as Section
from kto_release.records import JudgeFacts
from kto_release.run import Run
from kto_release.templates import load_template, render_text, set_template
from kto_release.templates.cutting import special_pattern


class LocalJudge:
    """See `Judge`. It shares the device with what generates, so it is loaded at its first question."""

    beside = False

    def __init__(
        self,
        section: Section,
        local: LocalModel,
        prompt: JudgePrompt,
        pool: Engines,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        self._prompt, self._pool, self._max_length = prompt, pool, section.max_length
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
            },
            official=False,
        )
        self.determines = determining(self.facts)

    @property
    def longest(self) -> int:
        """Most tokens of a prompt that an engine has to take."""
        limit = context_length(self.occupies.folder)
        return min(self._max_length, limit) if limit else self._max_length

    def affords(self, *_: int) -> bool:
        """See `Judge`. It costs time only."""
        return True

    def prepare(self, questions: int, characters: int) -> None:
        """See `Judge`. Nothing is paid here, and what can go wrong shows when the model is loaded."""

    def ask(self, questions: Questions, done: Done) -> None:
        """See `Judge`."""
        letters = letter_tokens(self._tokenizer)
        tokens = sorted({token for variants in letters for token in variants})
        fitting: list[tuple[Question, list[int]]] = []
        for question in questions:
            messages = self._prompt.fill(question.instruction, question.first, question.second)
            ids = prompt_ids(self._tokenizer, messages)
            if len(ids) < self.longest:
                fitting.append((question, ids))
            else:
                done(question, Failure(f"a prompt of {len(ids)} tokens, where {self.longest} are allowed"))
        if not fitting:
            return
        engine = self._pool.get(self.occupies, self.longest)
        start = time.monotonic()
        for index, logps in engine.next_logprobs([ids for _, ids in fitting], tokens):
            now = time.monotonic()
            done(fitting[index][0], _verdict(dict(zip(tokens, logps, strict=True)), letters, now - start))
            start = now


def letter_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """For each letter, every token that spells it: alone, after a space, as a byte. Raises `JudgeError`."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    special = set(tokenizer.all_special_ids)
    first, second = (
        [token for token, text in enumerate(texts) if text.strip() == letter and token not in special]
        for letter in LETTERS
    )
    if not (first and second):
        raise JudgeError(f"the judge's tokenizer has no token for {LETTERS[0]!r} or {LETTERS[1]!r}")
    return first, second


def _verdict(
    logps: Mapping[int, float], letters: tuple[Sequence[int], Sequence[int]], seconds: float
) -> Verdict | Failure:
    first, second = (math.fsum(math.exp(logps[token]) for token in variants) for variants in letters)
    mass = first + second
    if not (mass > 0 and math.isfinite(mass)):
        return Failure(f"no probability on either answer letter ({mass})")
    top = [
        {"token": letter, "logprob": math.log(value) if value > 0 else None}
        for letter, value in zip(LETTERS, (first, second), strict=True)
    ]
    raw = {"logprobs": {"content": [{"token": LETTERS[0] if first >= second else LETTERS[1], "top_logprobs": top}]}}
    return Verdict(first / mass, min(mass, 1.0), raw, seconds=seconds, price=0.0)


def prompt_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Ids of a question, whose structure is the template's alone.

    Text in a message that the tokenizer would read as a special token (<|im_end|>) becomes ordinary tokens. Where there
    is none, these are the ids that the model always gets.
    """
    special = special_pattern(tokenizer)
    try:
        text = render_text(tokenizer, messages, prompt=True)
    except ModelError:
        # Some templates know no system message; its text then opens the user's.
        system, user, *rest = messages
        messages = [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]
        text = render_text(tokenizer, messages, prompt=True)
    if not any(special.search(message["content"]) for message in messages):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return _split_ids(tokenizer, messages, special)


def _split_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], special: re.Pattern[str]) -> list[int]:
    """The template is rendered around stand-ins, so that only its own special tokens are in the text and are found."""
    stand_ins = [f"slot{secrets.token_hex(8)}" for _ in messages]
    contents = {stand_in: message["content"] for stand_in, message in zip(stand_ins, messages, strict=True)}
    blank = [{**message, "content": stand_in} for stand_in, message in zip(stand_ins, messages, strict=True)]
    skeleton = render_text(tokenizer, blank, prompt=True)
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


def open_judge(section: Section, run: Run, pool: Engines) -> LocalJudge:
    """The judge of this section; "initial" is the run's own initial model."""
    prompt = load_prompt(section.prompt)
    if section.model != "initial":
        return LocalJudge(section, locate(section.model, section.revision), prompt, pool)
    initial = run.recipe.model
    local = locate(initial.base, initial.revision)
    return LocalJudge(section, local, prompt, pool, trust_remote_code=initial.trust_remote_code)
