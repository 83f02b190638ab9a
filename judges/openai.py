"""A judge behind any OpenAI-compatible endpoint, asked many questions at once.

What may pass is tried again (429, 5xx, timeouts, resets; with the server's Retry-After), also where it comes in the
body of a success; what will not pass (401, 402, 404) stops everything at once; any other refusal is the question's, for
as long as the probe's question is answered; an answer that can't be read is asked for again and then counted as failed.
"""

import asyncio
import os
import random
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.engines import Engines, Model
from kto_release.errors import JudgeError
from kto_release.judges.faults import Fault, Kind, classify, classify_body, clean_words, words_of
from kto_release.judges.judge import Done, Failure, Question, Questions, Verdict, determining
from kto_release.judges.prompt import FOREIGN_MARKS, LETTERS, JudgePrompt, load_prompt
from kto_release.judges.reading import NoCompletion, Unreadable, read_body, read_error, read_usage, read_verdict
from kto_release.recipe import OpenAIJudge as Section
from kto_release.records import JudgeFacts
from kto_release.run import Run

DEFAULT_URL = "https://api.openai.com/v1"
REQUEST: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
"""AlpacaEval 2.0's request, with more log-probabilities than its five, so that both letters are among them. No
temperature: the API's own, 1, is AlpacaEval's, and newer models refuse to be told."""

CHARACTERS_PER_TOKEN = 4.0
UNREADABLE_TRIES = 3
"""How often a question is asked whose answer can't be read."""
PROBE_TRIES = 3
LONGEST_BACKOFF = 30.0
LONGEST_WAIT = 600.0
"""Seconds: a server that asks for more has closed for today."""
DEAD_AFTER = 3
"""So many questions in a row without an answer, each after all its tries: the endpoint is down."""
REFUSED_AFTER = 3
"""So many refusals in a row: the probe's question tells whether it is the questions or the request."""
WRITTEN = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Parameters that say how many tokens an answer may have, thoughts included."""
PROBE = Question("probe", 0, "reference_first", "What is 1 + 1?", "2", "11")
_END: Any = object()


class _Refused(Exception):  # noqa: N818 - what happened to one request
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class Estimate(NamedTuple):
    """What asking will cost, roughly."""

    tokens: int
    cost: float | None
    """USD; null where the recipe names no price."""


class OpenAIJudge:
    """See `Judge`."""

    beside = True
    occupies: Model | None = None
    longest = 0

    def __init__(self, section: Section, prompt: JudgePrompt, *, backoff: float = 0.5) -> None:
        self._section, self._prompt, self._backoff = section, prompt, backoff
        self._url = section.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        self._key = self._api_key()
        request = self._request = request_of(section.parameters)
        self._spent = 0.0
        self._open_at = 0.0
        self._unanswered = 0
        self._refused = 0
        self.facts = JudgeFacts(
            kind="openai",
            model=section.model,
            name=section.model.rsplit("/", 1)[-1],
            endpoint=section.endpoint or _host(self._url),
            prompt=prompt.name,
            prompt_sha256=prompt.sha256,
            swap=section.swap,
            parameters=request,
            official=False,
        )
        # The whole address determines a verdict, unless the recipe names what is served there. It can hold credentials,
        # as headers can, so both are known by a digest alone.
        where = section.endpoint or self._url.rstrip("/")
        headers = [sorted(section.headers.items())] if section.headers else []
        address = sha256_of([where, section.azure_api_version, *headers])
        self.determines = {**determining(self.facts), "address": address}

    def _api_key(self) -> str:
        key = os.environ.get(self._section.api_key_env)
        if key:
            return key
        if self._url == DEFAULT_URL or self._section.azure_api_version:
            raise JudgeError(
                f"no key for the judge: the environment variable {self._section.api_key_env} is not set",
                todo=f"export {self._section.api_key_env}=…, or name another variable in eval.judge.api_key_env",
            )
        return "no-key-needed"  # an endpoint of one's own often needs none, but the client insists

    def estimate(self, questions: int, characters: int) -> Estimate:
        """Tokens and cost of so many questions, with so many characters of instructions and answers in them."""
        read = (questions * self._prompt.characters + characters) / CHARACTERS_PER_TOKEN
        written = max((self._request[name] for name in WRITTEN if name in self._request), default=1)
        cost = self._price(read, questions * written * self._request.get("n", 1))
        return Estimate(round(read), cost)

    def _price(self, read: float, written: float) -> float | None:
        per_input, per_output = self._section.price_per_million_input, self._section.price_per_million_output
        if per_input is None or per_output is None:
            return None
        return (read * per_input + written * per_output) / 1e6

    def affords(self, questions: int, characters: int) -> bool:
        """See `Judge`."""
        cost, limit = self.estimate(questions, characters).cost, self._section.max_cost
        return limit is None or (cost is not None and cost <= limit)

    def prepare(self, questions: int, characters: int) -> None:
        """See `Judge`: the estimate is shown and held against max_cost, then one small question is asked."""
        estimate = self.estimate(questions, characters)
        limit = self._section.max_cost
        cost = "unknown cost (no price in the recipe)" if estimate.cost is None else f"about {usd(estimate.cost)}"
        console.say(f"{self.facts.model}: {questions} judgements, about {estimate.tokens:,} tokens, {cost}")
        if limit is not None and estimate.cost is None:
            raise JudgeError(
                "eval.judge.max_cost is set, and the price is not",
                todo="set eval.judge.price_per_million_input and price_per_million_output",
            )
        if limit is not None and not self.affords(questions, characters):
            raise JudgeError(
                f"judging would cost about {usd(estimate.cost or 0)}; nothing was asked",
                expected=f"at most {usd(limit)} (eval.judge.max_cost)",
                todo="raise max_cost, take a cheaper judge, or fewer instructions (eval.max_instructions)",
            )
        asyncio.run(self._probe())

    async def _probe(self) -> None:
        """Ask for the better of two answers, to learn whether the endpoint can be used at all."""
        async with self._client() as client:
            outcome = await self._answer(client, PROBE, tries=min(self._section.max_retries, PROBE_TRIES - 1) + 1)
        self._unanswered = self._refused = 0
        if isinstance(outcome, Failure):
            raise JudgeError(
                f"the judge {self.facts.model} at {self.facts.endpoint} can't be used: {outcome.reason}",
                expected="a chat completion with the log-probabilities of its first token "
                f"({LETTERS[0]!r} or {LETTERS[1]!r})",
                todo="check base_url and model: only models and endpoints that give log-probabilities can judge",
            )

    def ask(self, questions: Questions, done: Done) -> None:
        """See `Judge`. Questions may come from a `Feed`, while earlier ones are in flight."""
        asyncio.run(self._ask(questions, done))

    async def _ask(self, questions: Questions, done: Done) -> None:
        async with self._client() as client:
            lock, waiting = asyncio.Lock(), iter(questions)

            async def work() -> None:
                while True:
                    async with lock:
                        # In a thread: the next question may still have to be generated.
                        question = await asyncio.to_thread(next, waiting, _END)
                    if question is _END:
                        return
                    done(question, await self._answer(client, question, tries=self._section.max_retries + 1))
                    self._check_spent()

            workers = [asyncio.create_task(work()) for _ in range(self._section.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                questions.abandon()  # else the thread that waits for the next question would keep us here
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _client(self) -> Any:
        options: dict[str, Any] = {"api_key": self._key, "timeout": self._section.timeout, "max_retries": 0}
        options["default_headers"] = self._section.headers
        if self._section.azure_api_version:
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self._url, api_version=self._section.azure_api_version, **options
            )
        return openai.AsyncOpenAI(base_url=self._url, **options)

    async def _answer(self, client: Any, question: Question, *, tries: int) -> Verdict | Failure:
        """The verdict, after as many tries as its faults allow. Raises `JudgeError` where no question can succeed."""
        unreadable = 0
        for number in range(1, tries + UNREADABLE_TRIES):
            start = time.monotonic()
            try:
                verdict = await self._try(client, question)
            except _Refused as refused:
                fault = refused.fault
                if fault.kind is Kind.PERMANENT:
                    raise self._stopped(fault) from None
                if fault.kind is Kind.QUESTION:
                    await self._doubt(client, question, fault)
                    return Failure(fault.reason, number)
                if number - unreadable >= tries:
                    return self._gave_up(fault, number)
                await self._wait(fault, number)
            except Unreadable as problem:
                unreadable += 1
                if unreadable == UNREADABLE_TRIES:
                    self._unanswered = 0
                    return Failure(clean_words(str(problem), self._key), number)
                if isinstance(problem, NoCompletion):
                    await self._wait(Fault(Kind.PASSING, str(problem)), number)
            else:
                self._unanswered = self._refused = 0
                return verdict._replace(tries=number, seconds=round(time.monotonic() - start, 3))
        return Failure("no readable answer", tries)

    async def _doubt(self, client: Any, question: Question, fault: Fault) -> None:
        """After several refusals in a row, ask what was answered before. Raises `JudgeError` if it is refused now."""
        self._unanswered = 0
        self._refused += 1
        if question is PROBE or self._refused % REFUSED_AFTER:
            return
        try:
            await self._try(client, PROBE)
        except _Refused as refused:
            if refused.fault.kind is not Kind.PASSING:
                todo = refused.fault.todo or "check that the key may use this model, and eval.judge.parameters"
                raise self._stopped(fault._replace(todo=todo)) from None
        except Unreadable:
            return
        else:
            self._refused = 0

    async def _try(self, client: Any, question: Question) -> Verdict:
        await asyncio.sleep(max(0.0, self._open_at - time.monotonic()))
        try:
            # The parameters go as a body, since the client's signature knows OpenAI's alone.
            response = await client.chat.completions.with_raw_response.create(
                model=self._section.model,
                messages=self._prompt.fill(question.instruction, question.first, question.second),
                extra_body=self._request,
            )
        except openai.OpenAIError as error:
            raise _Refused(classify(error, self._key)) from None
        body = read_body(response.content)
        said = read_error(body)
        if said is not None:
            fault = classify_body(said, response.headers, self._key)
            if fault is not None:
                raise _Refused(fault)
            raise NoCompletion(f"the answer is an error: {words_of(said) or said!r}")
        tokens = read_usage(body)
        price = self._price(*tokens) if tokens else None
        self._spent += price or 0.0
        verdict = read_verdict(body)
        marked = FOREIGN_MARKS.search(question.first) or FOREIGN_MARKS.search(question.second)
        flagged = f"an answer holds {marked[0]!r}, which the endpoint may take for structure" if marked else None
        return verdict._replace(tokens=tokens, price=price, flagged=flagged)

    def _check_spent(self) -> None:
        limit = self._section.max_cost
        if limit is not None and self._spent > limit:
            raise JudgeError(
                f"judging has cost {usd(self._spent)} in this try, and is not done",
                expected=f"at most {usd(limit)} (eval.judge.max_cost)",
                todo="raise max_cost; the same command continues with the missing judgements",
            )

    async def _wait(self, fault: Fault, number: int) -> None:
        backoff = min(LONGEST_BACKOFF, self._backoff * 2 ** (number - 1)) * random.uniform(0.5, 1)
        if fault.retry_after is None:
            await asyncio.sleep(backoff)
            return
        if fault.retry_after > LONGEST_WAIT:
            raise self._stopped(Fault(Kind.PERMANENT, f"{fault.reason}; it asks to wait {fault.retry_after:.0f} s"))
        # The server's word is for all of us: no other question is sent before, either.
        self._open_at = max(self._open_at, time.monotonic() + fault.retry_after)
        await asyncio.sleep(fault.retry_after + backoff * 0.1)

    def _gave_up(self, fault: Fault, number: int) -> Failure:
        self._unanswered += 1
        if self._unanswered >= DEAD_AFTER:
            raise self._stopped(Fault(Kind.PERMANENT, f"{fault.reason}, {number} times, for several questions"))
        return Failure(f"{fault.reason} ({number} tries)", number)

    def _stopped(self, fault: Fault) -> JudgeError:
        return JudgeError(
            f"the judge {self.facts.model} at {self.facts.endpoint} stopped: {fault.reason}",
            todo=f"{fault.todo or 'see to the endpoint'}; the same command then continues, and what was judged is kept",
        )


def request_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """What is asked for beside the model and the messages; null takes one of our own parameters out."""
    own = {key: value for key, value in parameters.items() if key != "extra_body"}
    given = {**own, **(parameters.get("extra_body") or {})}
    request = {**REQUEST, **given}
    if "max_completion_tokens" in given and "max_tokens" not in given:
        del request["max_tokens"]
    return {key: value for key, value in request.items() if value is not None}


def usd(amount: float) -> str:
    """Dollars and cents; what is less than half a cent is no zero."""
    return "less than $0.01" if 0 < amount < 0.005 else f"${amount:.2f}"


def _host(url: str) -> str:
    """Host and port of a URL: neither path nor credentials."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeError(f"eval.judge.base_url {url!r} is no address", expected="for example http://127.0.0.1:8000/v1")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname


def open_judge(section: Section, run: Run, pool: Engines) -> OpenAIJudge:
    """The judge of this section: it needs neither the run nor an engine."""
    del run, pool
    return OpenAIJudge(section, load_prompt(section.prompt))
