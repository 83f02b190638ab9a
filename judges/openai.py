"""A judge behind any OpenAI-compatible endpoint, asked many questions at once.

What may pass is tried again (429, 5xx, timeouts, resets; with the server's Retry-After), also where it comes in the
body of a success; what will not pass (401, 402, 404) stops everything at once; any other refusal is the question's, for
as long as the probe's question is answered; an answer that can't be read is asked for again and then counted as failed.
"""

import asyncio
import time
from typing import Any, NamedTuple

from kto_release import console
from kto_release.engines import Model
from kto_release.errors import JudgeError
from kto_release.judges.endpoint import Endpoint, Refused
from kto_release.judges.faults import Fault, Kind, clean_words
from kto_release.judges.forms import Form, form_of, wants_words
from kto_release.judges.judge import Done, Failure, Load, Question, Questions, Verdict, determining
from kto_release.judges.prompt import FOREIGN_MARKS, JudgePrompt
from kto_release.judges.reading import NoCompletion, Unreadable, read_served, read_usage, read_verdict, read_words
from kto_release.judges.trial import TrialRecord, in_words
from kto_release.judges.voting import together
from kto_release.recipe import OpenAIJudge as Section
from kto_release.records import JudgeFacts

CHARACTERS_PER_TOKEN = 4.0
UNREADABLE_TRIES = 3
"""How often a question is asked whose answer can't be read."""
PROBE_TRIES = 3
BATCH_PRICE = 0.5
"""Of a request in a batch, by OpenAI's and Anthropic's price lists."""
DEAD_AFTER = 3
"""So many questions in a row without an answer, each after all its tries: the endpoint is down."""
REFUSED_AFTER = 3
"""So many refusals in a row: the probe's question tells whether it is the questions or the request."""
PROBE = Question("probe", 0, "reference_first", "What is 1 + 1?", "2", "11")
_END: Any = object()


class Estimate(NamedTuple):
    """What asking will cost, roughly."""

    tokens: int
    cost: float | None
    """USD at most, with every token that may be written; null where the recipe names no price."""
    likely: float | None
    """USD, where answers are as long as in the trial; null without one, and without a price."""


class OpenAIJudge:
    """See `Judge`. `form` is how it is asked, as a trial settled it; null: as the recipe says, auto as logprobs."""

    occupies: Model | None = None
    longest = 0

    def __init__(
        self,
        section: Section,
        prompt: JudgePrompt,
        form: Form | None = None,
        *,
        trial: TrialRecord | None = None,
        backoff: float = 0.5,
    ) -> None:
        self._section, self._prompt = section, prompt
        self._endpoint = Endpoint(section, backoff)
        self._form = form or form_of(section, prompt.letters, words=wants_words(section))
        self._tries = section.max_retries + 1
        self._votes = section.votes if self._form.words else 1
        self._spent = 0.0
        self._unanswered = 0
        self._refused = 0
        self.trial = in_words(trial) if trial else None
        self._wrote = trial.written if trial else None
        self.batch = section.batch
        self.beside = section.batch is None
        self.facts = JudgeFacts(
            kind="openai",
            model=section.model,
            name=section.model.rsplit("/", 1)[-1],
            endpoint=self._endpoint.host,
            prompt=prompt.name,
            prompt_sha256=prompt.sha256,
            swap=section.swap,
            parameters=self._form.request,
            official=False,
            words=self._form.words,
            votes=self._votes,
        )
        self.determines = {**determining(self.facts), "address": self._endpoint.digest}

    def estimate(self, questions: int, characters: int) -> Estimate:
        """Tokens and cost of so many questions, with so many characters of instructions and answers in them."""
        asked = questions * self._votes
        read = (questions * self._prompt.characters + characters) / CHARACTERS_PER_TOKEN * self._votes
        cost = self._price(read, asked * self._form.written * self._form.request.get("n", 1))
        likely = self._price(read, asked * self._wrote) if self._wrote is not None else None
        return Estimate(round(read), cost, likely)

    def _price(self, read: float, written: float) -> float | None:
        per_input, per_output = self._section.price_per_million_input, self._section.price_per_million_output
        if per_input is None or per_output is None:
            return None
        share = 1.0 if self.batch is None else BATCH_PRICE
        return (read * per_input + written * per_output) / 1e6 * share

    def affords(self, questions: int, characters: int) -> bool:
        """See `Judge`."""
        cost, limit = self.estimate(questions, characters).cost, self._section.max_cost
        return limit is None or (cost is not None and cost <= limit)

    def priced(self, load: Load) -> str:
        """See `Judge`."""
        estimate = self.estimate(*load)
        cost = "unknown cost (no price in the recipe)" if estimate.cost is None else f"about {usd(estimate.cost)}"
        if estimate.cost is not None and estimate.likely is not None and self._form.words:
            cost = f"at most {usd(estimate.cost)}, {usd(estimate.likely)} where answers are as long as those"
        times = f" of {self._votes} votes" if self._votes > 1 else ""
        return f"{self.facts.model}: {load.questions} judgements{times}, about {estimate.tokens:,} tokens, {cost}"

    def prepare(self, questions: int, characters: int) -> None:
        """See `Judge`: the estimate is shown and held against max_cost, then one small question is asked."""
        console.say(self.priced(Load(questions, characters)))
        self.refuse_dear(Load(questions, characters))
        outcome = self.probe()
        if isinstance(outcome, Failure):
            raise self.unusable(outcome.reason, passing=outcome.passing)

    def refuse_dear(self, load: Load) -> None:
        """Raise `JudgeError` where that would cost more than max_cost."""
        cost, limit = self.estimate(*load).cost, self._section.max_cost
        if limit is not None and cost is None:
            raise JudgeError(
                "eval.judge.max_cost is set, and the price is not",
                todo="set eval.judge.price_per_million_input and price_per_million_output",
            )
        if not self.affords(*load):
            raise JudgeError(
                f"judging would cost about {usd(cost or 0)}; nothing was asked",
                expected=f"at most {usd(limit or 0)} (eval.judge.max_cost)",
                todo="raise max_cost, take a cheaper judge, or fewer instructions (eval.max_instructions)",
            )

    def probe(self) -> Verdict | Failure:
        """Ask for the better of two answers, to learn whether the endpoint can be used at all."""

        async def asked() -> Verdict | Failure:
            async with self._endpoint.client() as client:
                return await self._answer(client, PROBE, tries=min(self._tries, PROBE_TRIES))

        outcome = asyncio.run(asked())
        self._unanswered = self._refused = 0
        return outcome

    def unusable(self, reason: str, *, passing: bool = False) -> JudgeError:
        """The error that says why this judge can't be used; `passing`: not now, that is."""
        words, letters = self._form.words, self._prompt.letters
        todo = [
            "check base_url and model",
            "give it more room in eval.judge.max_tokens or less to think (reasoning_effort, chat_template_kwargs)"
            if words
            else "let it answer in words: eval.judge.verdict: text",
        ]
        if self._prompt.name != "alpaca_eval":
            todo.insert(0, "name the letters that your prompt asks for in eval.judge.letters")
        return JudgeError(
            f"the judge {self.facts.model} at {self.facts.endpoint} can't be used: {reason}",
            expected=f"one of its letters as its verdict ({letters})"
            if words
            else f"a chat completion with the log-probabilities of its first token ({letters})",
            todo="see to the endpoint, and run the same command again" if passing else ", or ".join(todo),
        )

    def ask(self, questions: Questions, done: Done) -> None:
        """See `Judge`. Questions may come from a `Feed`, while earlier ones are in flight."""
        asyncio.run(self._ask(questions, done))

    async def _ask(self, questions: Questions, done: Done) -> None:
        async with self._endpoint.client() as client:
            lock, waiting = asyncio.Lock(), iter(questions)

            async def work() -> None:
                while True:
                    async with lock:
                        # In a thread: the next question may still have to be generated.
                        question = await asyncio.to_thread(next, waiting, _END)
                    if question is _END:
                        return
                    done(question, await self._voted(client, question))
                    self._check_spent()

            workers = [asyncio.create_task(work()) for _ in range(self._section.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                questions.abandon()  # else the thread that waits for the next question would keep us here
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _voted(self, client: Any, question: Question) -> Verdict | Failure:
        """The share of all votes; a question without one of them has no verdict."""
        votes = list[Verdict]()
        for _ in range(self._votes):
            outcome = await self._answer(client, question, tries=self._tries)
            if isinstance(outcome, Failure):
                return outcome._replace(unreadable=outcome.unreadable + sum(vote.unreadable for vote in votes))
            votes.append(outcome)
        return votes[0] if len(votes) == 1 else together(votes)

    async def _answer(self, client: Any, question: Question, *, tries: int) -> Verdict | Failure:
        """The verdict, after as many tries as its faults allow. Raises `JudgeError` where no question can succeed."""
        unreadable = 0
        for number in range(1, tries + UNREADABLE_TRIES):
            start = time.monotonic()
            try:
                verdict = await self._try(client, question)
            except Refused as refused:
                fault = refused.fault
                if fault.kind is Kind.PERMANENT:
                    raise self._stopped(fault) from None
                if fault.kind is Kind.QUESTION:
                    await self._doubt(client, question, fault)
                    return Failure(fault.reason, number, unreadable)
                if number - unreadable >= tries:
                    return self._gave_up(fault, number, unreadable)
                await self._wait(fault, number)
            except Unreadable as problem:
                unreadable += 1
                if unreadable == UNREADABLE_TRIES:
                    self._unanswered = 0
                    return Failure(clean_words(str(problem), self._endpoint.key), number, unreadable)
                if isinstance(problem, NoCompletion):
                    await self._wait(Fault(Kind.PASSING, str(problem)), number)
            else:
                self._unanswered = self._refused = 0
                seconds = round(time.monotonic() - start, 3)
                return verdict._replace(tries=number, seconds=seconds, unreadable=unreadable)
        return Failure("no readable answer", tries, unreadable)

    async def _doubt(self, client: Any, question: Question, fault: Fault) -> None:
        """After several refusals in a row, ask what was answered before. Raises `JudgeError` if it is refused now."""
        self._unanswered = 0
        self._refused += 1
        if question is PROBE or self._refused % REFUSED_AFTER:
            return
        try:
            await self._try(client, PROBE)
        except Refused as refused:
            if refused.fault.kind is not Kind.PASSING:
                todo = refused.fault.todo or "check that the key may use this model, and eval.judge.parameters"
                raise self._stopped(fault._replace(todo=todo)) from None
        except Unreadable:
            return
        else:
            self._refused = 0

    async def _try(self, client: Any, question: Question) -> Verdict:
        body = await self._endpoint.send(client, self._messages(question), self._form.request)
        tokens = read_usage(body)
        self._spent += (self._price(*tokens) or 0.0) if tokens else 0.0
        return self.read(body, question)

    def _messages(self, question: Question) -> list[dict[str, str]]:
        return self._prompt.fill(question.instruction, question.first, question.second)

    def body(self, question: Question) -> dict[str, Any]:
        """A question's request, whole."""
        return {"model": self._section.model, "messages": self._messages(question), **self._form.request}

    def read(self, body: dict[str, Any], question: Question) -> Verdict:
        """The verdict in an answer to a question. Raises `Unreadable`."""
        tokens = read_usage(body)
        if self._form.words:
            verdict = read_words(body, self._prompt.letters)
        else:
            verdict = read_verdict(body, self._prompt.letters, self._form.request.get("top_logprobs", 1))
        marked = FOREIGN_MARKS.search(question.first) or FOREIGN_MARKS.search(question.second)
        return verdict._replace(
            tokens=tokens,
            price=self._price(*tokens) if tokens else None,
            flagged=f"an answer holds {marked[0]!r}, which the endpoint may take for structure" if marked else None,
            served=read_served(body),
            characters=sum(len(message["content"]) for message in self._messages(question)),
        )

    def _check_spent(self) -> None:
        limit = self._section.max_cost
        if limit is not None and self._spent > limit:
            raise JudgeError(
                f"judging has cost {usd(self._spent)} in this try, and is not done",
                expected=f"at most {usd(limit)} (eval.judge.max_cost)",
                todo="raise max_cost; the same command continues with the missing judgements",
            )

    async def _wait(self, fault: Fault, number: int) -> None:
        try:
            await self._endpoint.wait(fault, number)
        except Refused as closed:
            raise self._stopped(closed.fault) from None

    def _gave_up(self, fault: Fault, number: int, unreadable: int) -> Failure:
        self._unanswered += 1
        if self._unanswered >= DEAD_AFTER:
            raise self._stopped(Fault(Kind.PERMANENT, f"{fault.reason}, {number} times, for several questions"))
        return Failure(f"{fault.reason} ({number} tries)", number, unreadable, passing=True)

    def _stopped(self, fault: Fault) -> JudgeError:
        return JudgeError(
            f"the judge {self.facts.model} at {self.facts.endpoint} stopped: {fault.reason}",
            todo=f"{fault.todo or 'see to the endpoint'}; the same command then continues, and what was judged is kept",
        )


def usd(amount: float) -> str:
    """Dollars and cents; what is less than half a cent is no zero."""
    return "less than $0.01" if 0 < amount < 0.005 else f"${amount:.2f}"
