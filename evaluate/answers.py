"""Answers of a model to the instructions: each on disk as soon as it is finished, and none generated twice.

eval/<model>/<instructions>/ plan.json            what determines the answers; written first
                             answers.jsonl        one line for each finished answer
                             model_outputs.json   the same in alpaca_eval's format
                             record.json          written last
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.engines import Engines, Request, Sampling, choose
from kto_release.errors import DataError, RunError
from kto_release.evaluate.candidates import Candidate, check_weights
from kto_release.evaluate.instructions import InstructionSet, Outputs
from kto_release.evaluate.kept_answers import keep, kept_answers, reuse
from kto_release.evaluate.questions import Instruction
from kto_release.files import append_jsonl, read_jsonl, read_record, write_atomically, write_record
from kto_release.provenance import environment, now
from kto_release.recipe import GenerationSection
from kto_release.records import Environment, Facts, GenerationFacts, ModelFacts
from kto_release.run import Run
from kto_release.templates import render
from kto_release.templates.thoughts import answer_of, without_thoughts


class Plan(Facts):
    """`plan.json`: everything that determines the answers, but for how many are drawn."""

    model: str
    """Digest of the weights."""
    dtype: str
    template: str
    """Digest of the chat template."""
    instructions: str
    """Digest of the instructions."""
    temperature: float
    top_p: float
    top_k: int | None
    max_tokens: int
    max_model_len: int | None
    seed: int
    stop_ids: list[int]
    engine: str
    chat_template_kwargs: dict[str, Any] | None = None


class AnswersRecord(Facts):
    """`record.json`: the answers are complete."""

    kind: Literal["answers"] = "answers"
    finished: str
    model: ModelFacts
    template: str
    template_sha256: str
    instructions: str
    instructions_sha256: str
    instructions_revision: str | None
    generation: GenerationFacts
    cut: int
    """Answers that were cut at max_tokens, within their thoughts or after them."""
    thoughts: int = 0
    """Answers before which the model thought: that is left out, and kept in answers.jsonl."""
    environment: Environment


class Answer(NamedTuple):
    """One answer."""

    place: int
    """Which instruction, from 0."""
    sample: int
    """Which of its answers, from 0."""
    text: str
    tokens: int
    cut: bool
    """Whether it ended at max_tokens, or within its thoughts, not by itself."""
    thoughts: str | None = None
    """What the model thought first; null where it did not."""


class Answers(NamedTuple):
    """All answers of one model."""

    generator: str
    rows: list[Answer]
    """By instruction, then by sample."""
    record: AnswersRecord | None
    """Null for stored outputs, of which nothing more is known."""
    sha256: str
    """Digest of the texts, in order."""


def answer(
    run: Run,
    candidate: Candidate,
    instructions: InstructionSet,
    pool: Engines,
    *,
    reserve: int = 0,
    heard: Callable[[Answer], None] | None = None,
) -> Answers:
    """The candidate's answers: those on disk, and the missing ones generated.

    `reserve`: tokens that the engine must have room for where it will serve another purpose afterwards. `heard` is told
    every answer as soon as there is one. Raises `RunError` where what is on disk was made otherwise, and `EngineError`.
    """
    folder = run.eval_folder(candidate.name, instructions.folder)
    settings = run.recipe.eval.generation
    plan = _plan(run, candidate, instructions)
    _check_plan(folder, plan)
    kept = kept_answers(plan.model_dump()) if candidate.name == "initial" else None
    if kept is not None and (found := reuse(kept, folder / "answers.jsonl", [row.text for row in instructions.rows])):
        console.say(f"{candidate.name}: {found} answers were generated before, in another run, and are used again.")
    rows = _Journal(folder / "answers.jsonl", instructions)
    wanted = [(place, sample) for place in range(len(instructions.rows)) for sample in range(settings.samples)]
    if heard is not None:
        for answered in rows.found.values():
            if answered.sample < settings.samples:
                heard(answered)
    missing = [key for key in wanted if key not in rows.found]
    record = read_record(folder / "record.json", AnswersRecord)
    if missing or record is None or record.generation.samples != settings.samples:
        if missing:
            check_weights(candidate)
            hardware = _generate(run, candidate, instructions, pool, rows, missing, reserve, heard)
        else:
            hardware = None
        record = _finish(folder, run, candidate, instructions, [rows.found[key] for key in wanted], rows, hardware)
        if kept is not None:
            keep(kept, folder / "answers.jsonl")
    else:
        console.say(f"{candidate.name}: all {len(wanted)} answers are there.")
    return _answers(candidate.generator, [rows.found[key] for key in wanted], record)


def stored_answers(outputs: Outputs, instructions: InstructionSet, *, allow_partial: bool = False) -> Answers:
    """Answers from a file, found by instruction. Raises `DataError` where any is missing, without `allow_partial`."""
    texts = outputs.by_place(instructions) if allow_partial else outputs.all_by_place(instructions)
    said = [(place, without_thoughts(text)) for place, text in enumerate(texts) if text is not None]
    if not said:
        raise DataError(f"{outputs.name!r} has no output for any of the instructions", expected="outputs of this set")
    rows = [Answer(place, 0, one.text, 0, not one.closed, one.thoughts) for place, one in said]
    return _answers(outputs.name, rows, None)


def _answers(generator: str, rows: list[Answer], record: AnswersRecord | None) -> Answers:
    return Answers(generator, rows, record, sha256_of([[row.place, row.sample, row.text] for row in rows]))


def are_complete(run: Run, candidate: Candidate, instructions: InstructionSet) -> bool:
    """Whether nothing is left to generate, as far as the record tells."""
    record = read_record(run.eval_folder(candidate.name, instructions.folder) / "record.json", AnswersRecord)
    return record is not None and record.generation.samples == run.recipe.eval.generation.samples


def _plan(run: Run, candidate: Candidate, instructions: InstructionSet) -> Plan:
    settings, engine = run.recipe.eval.generation, run.recipe.eval.engine
    return Plan(
        model=candidate.facts.sha256,
        dtype=candidate.model.dtype,
        template=candidate.template.sha256,
        instructions=instructions.sha256,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_tokens=settings.max_tokens,
        max_model_len=engine.max_model_len,
        seed=settings.seed,
        stop_ids=list(candidate.stop_ids),
        engine=choose(engine),
        chat_template_kwargs=settings.chat_template_kwargs or None,
    )


def _check_plan(folder: Path, plan: Plan) -> None:
    """Write the plan, or refuse where the answers on disk came from another one."""
    path = folder / "plan.json"
    old = read_record(path, Plan)
    if old is None:
        write_record(path, plan)
        return
    was, now_is = old.model_dump(), plan.model_dump()
    changes = [f"  - {name}: {was[name]!r} there, {now_is[name]!r} now" for name in was if was[name] != now_is[name]]
    if changes:
        where = "/".join(folder.parts[-3:])
        raise RunError(
            f"the answers in {where} were made otherwise:\n" + "\n".join(changes),
            todo=f"undo the change, or remove {where} to generate them again",
        )


class _Journal:
    """answers.jsonl: the answers that there are, by instruction and sample."""

    def __init__(self, path: Path, instructions: InstructionSet) -> None:
        self.path, self.instructions = path, instructions
        places = {row.text: place for place, row in enumerate(instructions.rows)}
        self.found: dict[tuple[int, int], Answer] = {}
        self.seconds: dict[int, float] = {}
        """Of each try, up to its last answer."""
        self.versions: set[str] = set()
        """Of the engines that made them."""
        for number, row in enumerate(read_jsonl(path), 1):
            try:
                one = Answer(
                    places[row["instruction"]],
                    row["sample"],
                    row["output"],
                    row["tokens"],
                    row["finish"] != "stop",
                    row.get("thoughts"),
                )
                self.seconds[row["try"]] = row["seconds"]
                self.versions.add(row["engine"])
            except KeyError as error:
                raise RunError(
                    f"{path.name}, line {number}: not an answer to these instructions ({error})",
                    todo="restore the file, or remove it to generate all answers again",
                ) from None
            self.found[one.place, one.sample] = one
        self.tried = max(self.seconds, default=0) + 1

    def add(self, one: Answer, seconds: float, seed: int, version: str) -> None:
        """Keep an answer, on disk before anything else happens."""
        row: dict[str, Any] = {
            "instruction": self.instructions.rows[one.place].text,
            "dataset": self.instructions.rows[one.place].dataset,
            "sample": one.sample,
            "seed": seed,
            "output": one.text,
            "tokens": one.tokens,
            "finish": "length" if one.cut else "stop",
            **({} if one.thoughts is None else {"thoughts": one.thoughts}),
            "try": self.tried,
            "seconds": round(seconds, 3),
            "engine": version,
        }
        append_jsonl(self.path, row)
        self.found[one.place, one.sample] = one
        self.seconds[self.tried] = seconds
        self.versions.add(version)


def _generate(
    run: Run,
    candidate: Candidate,
    instructions: InstructionSet,
    pool: Engines,
    journal: _Journal,
    missing: Sequence[tuple[int, int]],
    reserve: int,
    heard: Callable[[Answer], None] | None,
) -> str | None:
    settings = run.recipe.eval.generation
    prompts = _prompts(candidate, instructions, settings.chat_template_kwargs)
    requests = [
        Request(prompts[place], seed_of(settings.seed, instructions.rows[place].text, sample))
        for place, sample in missing
    ]
    longest = max(len(ids) for ids in prompts) + settings.max_tokens
    with console.progress() as display:
        task = display.add_task(f"{candidate.name}: answers", total=len(prompts) * settings.samples)
        display.advance(task, len(prompts) * settings.samples - len(missing))
        engine = pool.get(candidate.model, max(longest, reserve))
        start = time.monotonic()
        for index, completion in engine.generate(requests, _sampling(settings, candidate)):
            place, sample = missing[index]
            said = answer_of(candidate.tokenizer, completion.ids, prompts[place])
            cut = completion.finish == "length" or not said.closed
            one = Answer(place, sample, said.text, len(completion.ids), cut, said.thoughts)
            journal.add(one, time.monotonic() - start, requests[index].seed, engine.version)
            display.advance(task)
            if heard is not None:
                heard(one)
    return engine.hardware


def _prompts(candidate: Candidate, instructions: InstructionSet, variables: dict[str, Any]) -> list[list[int]]:
    prompts = []
    for place, row in enumerate(instructions.rows, 1):
        ids = render(candidate.tokenizer, row.messages, prompt=True, variables=variables)
        if not ids:
            raise DataError(f"instruction {place} gives no tokens: {row.text[:60]!r}")
        prompts.append(ids)
    return prompts


def _sampling(settings: GenerationSection, candidate: Candidate) -> Sampling:
    return Sampling(settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, candidate.stop_ids)


def seed_of(seed: int, instruction: str, sample: int) -> int:
    """An answer's own seed, of 32 bits: it depends on nothing but the recipe's seed, the instruction and the sample."""
    digest = hashlib.sha256(f"{seed}\n{sample}\n{instruction}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4])


def _conversation(instruction: Instruction) -> dict[str, Any]:
    return {"messages": instruction.messages} if instruction.conversation else {}


def _finish(
    folder: Path,
    run: Run,
    candidate: Candidate,
    instructions: InstructionSet,
    answers: Sequence[Answer],
    journal: _Journal,
    hardware: str | None,
) -> AnswersRecord:
    settings, kind = run.recipe.eval.generation, choose(run.recipe.eval.engine)
    outputs = [
        {
            "dataset": instructions.rows[one.place].dataset,
            "instruction": instructions.rows[one.place].text,
            "output": one.text,
            "generator": candidate.generator,
            **_conversation(instructions.rows[one.place]),
        }
        for one in answers
        if one.sample == 0
    ]
    write_atomically(folder / "model_outputs.json", json.dumps(outputs, indent=2, ensure_ascii=False) + "\n")
    record = AnswersRecord(
        finished=now(),
        model=candidate.facts,
        template=candidate.template.name,
        template_sha256=candidate.template.sha256,
        instructions=instructions.name,
        instructions_sha256=instructions.sha256,
        instructions_revision=instructions.revision,
        generation=GenerationFacts(
            engine=kind,
            engine_version=", ".join(sorted(journal.versions)),
            dtype=candidate.model.dtype,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=settings.max_tokens,
            seed=settings.seed,
            samples=settings.samples,
            seconds=round(sum(journal.seconds.values()), 3),
            tokens=sum(one.tokens for one in answers),
            chat_template_kwargs=settings.chat_template_kwargs,
        ),
        thoughts=sum(bool(one.thoughts) for one in answers),
        cut=sum(one.cut for one in answers),
        environment=environment(hardware),
    )
    write_record(folder / "record.json", record)
    return record
