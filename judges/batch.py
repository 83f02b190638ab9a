"""Batches: the same questions at half the price, handed over as files and collected later, in two resumable steps.

<judge>/batch/ requests-001.jsonl   the questions in OpenAI's form, or .json in Anthropic's; what waits is asked once
               *.jsonl              what came back, whatever its name: put there by whoever handed the requests over

Each run of the command collects what is there, and writes what is still to be asked. A question that expired, or whose
answer holds no verdict, is asked again in a later file; one that was refused has failed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release import console
from kto_release.errors import RunError
from kto_release.files import write_atomically
from kto_release.judges.asking import Journal, Pair, questions_of
from kto_release.judges.faults import Kind, classify_body, clean_words, words_of
from kto_release.judges.judge import Failure, Judge, Load, Question, Verdict
from kto_release.judges.openai import UNREADABLE_TRIES, OpenAIJudge
from kto_release.judges.reading import Unreadable, read_body
from kto_release.judges.voting import together

MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
"""Of a file: OpenAI takes 50,000 requests in 200 MB, Anthropic 100,000 in 256 MB."""
HANDED_OVER = {
    "openai": "upload each as a file of purpose batch, make a batch of it for /v1/chat/completions,",
    "anthropic": "send each to /v1/messages/batches,",
}


class Slip(NamedTuple):
    """One request of a batch."""

    id: str
    question: Question


def collected(judge: Judge, pairs: Sequence[Pair], journal: Journal) -> bool:
    """Collect what came back and write what is to be asked; whether nothing is waited for any longer.

    True at once for a judge that is not asked in batches. Raises `JudgeError` where that would cost more than max_cost,
    and `RunError` for a damaged file.
    """
    if not isinstance(judge, OpenAIJudge) or judge.batch is None:
        return True
    folder = journal.folder / "batch"
    asked = _asked(folder)
    results, foreign = _results(folder), set[str]()
    questions = {q.key: q for number, pair in enumerate(pairs) for q in questions_of(number, pair, judge)}
    wanted, waiting = list[Slip](), 0
    for question in questions.values():
        if question.key in journal.verdicts:
            continue
        outcome = _outcome(judge, question, results, asked)
        if isinstance(outcome, list):
            waiting += 1
            wanted += outcome
        else:
            journal.keep(question, outcome)
    known = {_stem(key) for key in questions}
    foreign = {name for name in results if name.rsplit("-", 2)[0] not in known}
    if foreign:
        console.warn(f"{len(foreign)} results in {folder.name} are of no question of this evaluation")
    journal.write_failures()
    if wanted:
        _write(judge, folder, wanted)
    if waiting:
        files = ", ".join(sorted(path.name for path in folder.glob("requests-*")))
        console.say(f"{waiting} of {len(questions)} judgements wait for batches. Requests, in {folder}: {files}")
        console.say(
            f"to do: {HANDED_OVER[judge.batch]} and put what comes back there as *.jsonl, errors included; "
            "the same command then collects it"
        )
    return not waiting


def _outcome(
    judge: OpenAIJudge, question: Question, results: Mapping[str, dict[str, Any]], asked: set[str]
) -> Verdict | Failure | list[Slip]:
    """The outcome of a question, or the requests that are still to be written for it; none of them, where all wait."""
    votes, slips, waits = list[Verdict](), list[Slip](), False
    for vote in range(1, judge.facts.votes + 1):
        said: Verdict | Failure | None = None
        for attempt in range(1, UNREADABLE_TRIES + 1):
            name = f"{_stem(question.key)}-{vote}-{attempt}"
            if name not in results:
                waits, said = True, None
                if name not in asked:
                    slips.append(Slip(name, question))
                break
            said = _read(judge, question, results[name])
            if isinstance(said, Verdict) or not said.passing:
                break
        if isinstance(said, Failure):
            return said._replace(passing=False)
        if said is not None:
            votes.append(said)
    return slips if waits else together(votes) if len(votes) > 1 else votes[0]


def _read(judge: OpenAIJudge, question: Question, result: dict[str, Any]) -> Verdict | Failure:
    """What a line says; a failure that asking again may mend is marked as passing."""
    body, error = _of_openai(result) if "response" in result or "error" in result else _of_anthropic(result)
    if body is None:
        fault = classify_body(error, {}, "no key")
        reason = fault.reason if fault else clean_words(words_of(error) or "no answer", "no key")
        return Failure(reason, passing=fault is None or fault.kind is not Kind.QUESTION)
    try:
        return judge.read(body, question)
    except Unreadable as problem:
        return Failure(str(problem), 1, 1, passing=True)


def _of_openai(result: dict[str, Any]) -> tuple[dict[str, Any] | None, Any]:
    response = result.get("response")
    if not isinstance(response, dict):
        return None, result.get("error")
    body, status = response.get("body"), response.get("status_code")
    if status == 200 and isinstance(body, dict):
        return body, None
    error = body.get("error") if isinstance(body, dict) else body
    return None, {**(error if isinstance(error, dict) else {"message": str(error)}), "code": status}


def _of_anthropic(result: dict[str, Any]) -> tuple[dict[str, Any] | None, Any]:
    """A message as a chat completion, so that there is one reader."""
    inner = result.get("result")
    inner = inner if isinstance(inner, dict) else {}
    message = inner.get("message")
    if inner.get("type") != "succeeded" or not isinstance(message, dict):
        error = inner.get("error")
        error = error.get("error", error) if isinstance(error, dict) else {}
        refused = isinstance(error, dict) and error.get("type") == "invalid_request_error"
        return None, {"message": words_of(error) or inner.get("type"), "code": 400 if refused else None}
    usage = message.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    read = [
        counts.get(name) or 0 for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    ]
    finish = "length" if message.get("stop_reason") == "max_tokens" else "stop"
    return {
        "model": message.get("model"),
        "choices": [{"message": {"content": message.get("content")}, "finish_reason": finish}],
        "usage": {"prompt_tokens": sum(read), "completion_tokens": counts.get("output_tokens")},
    }, None


def _stem(key: str) -> str:
    """The part of a question's key that is in the name of its requests, which may have 64 characters."""
    return key[:48]


def _write(judge: OpenAIJudge, folder: Path, slips: Sequence[Slip]) -> None:
    """The requests, in as many files as they need, each whole or not there."""
    distinct = {slip.question.key: slip.question for slip in slips}.values()
    characters = sum(len(question.instruction) + len(question.first) + len(question.second) for question in distinct)
    load = Load(len(distinct), characters)
    console.say(judge.priced(load))
    judge.refuse_dear(load)
    folder.mkdir(parents=True, exist_ok=True)
    number = len([*folder.glob("requests-*")])
    for lines in _shares([json.dumps(_request(judge, slip), ensure_ascii=False) for slip in slips]):
        number += 1
        if judge.batch == "anthropic":
            text, name = '{"requests": [\n' + ",\n".join(lines) + "\n]}\n", f"requests-{number:03}.json"
        else:
            text, name = "".join(line + "\n" for line in lines), f"requests-{number:03}.jsonl"
        write_atomically(folder / name, text.encode("utf-8", "backslashreplace"))


def _shares(lines: Sequence[str]) -> Iterator[list[str]]:
    share, size = list[str](), 0
    for line in lines:
        length = len(line.encode("utf-8", "backslashreplace")) + 2
        if share and (len(share) == MOST_REQUESTS or size + length > MOST_BYTES):
            yield share
            share, size = [], 0
        share.append(line)
        size += length
    yield share


def _request(judge: OpenAIJudge, slip: Slip) -> dict[str, Any]:
    body = judge.body(slip.question)
    if judge.batch == "openai":
        return {"custom_id": slip.id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    messages = body.pop("messages")
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    turns = [message for message in messages if message["role"] != "system"]
    return {"custom_id": slip.id, "params": {**body, **({"system": system} if system else {}), "messages": turns}}


def _asked(folder: Path) -> set[str]:
    """Names of the requests that were written."""
    names = set[str]()
    for path in sorted(folder.glob("requests-*")):
        rows = [*_lines(path)] if path.suffix == ".jsonl" else _object(path.read_bytes(), path.name).get("requests", [])
        names |= {row["custom_id"] for row in rows}
    return names


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    """What came back, by the name of its request."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        if not path.name.startswith("requests-"):
            for row in _lines(path):
                if not isinstance(row.get("custom_id"), str):
                    raise RunError(f"{path.name}: no 'custom_id' in a line", expected="results of a batch, a line each")
                found[row["custom_id"]] = row
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            yield _object(line, f"{path.name}, line {number}")


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        return read_body(content)
    except Unreadable as problem:
        raise RunError(f"{where}: {problem}", todo="restore the file, or download it again") from None
