"""Training rows of other tools: OpenAI's preference rows, LLaMA-Factory's (alpaca) and ms-swift's."""

from collections.abc import Iterator

from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, messages, text_of
from kto_release.feedback.rows import Message, RowProblem

DPO_KEYS = {"input", "preferred_output", "non_preferred_output"}
DPO_INPUT = {"messages", "tools", "parallel_tool_calls"}
ALPACA_KEYS = {"instruction", "input", "output", "system", "history", "kto_tag", "chosen", "rejected"}
SWIFT_KEYS = {"messages", "label", "rejected_response", "tools", "id"}


def _known(record: Record, keys: set[str], name: str = "the row") -> None:
    strange = sorted(key for key in record.keys() - keys if record[key] not in (None, "", [], {}))
    if strange:
        raise RowProblem(f"{name} has {', '.join(map(repr, strange))}, which can't be told apart from the conversation")


def _dpo(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    _known(record, DPO_KEYS | {"id"})
    _known(record["input"], DPO_INPUT, "'input'")
    prompt = messages(record["input"]["messages"])
    for side in ("preferred_output", "non_preferred_output"):
        answer = messages(record[side], side)
        if len(answer) != 1:
            raise RowProblem(f"{side!r} holds {len(answer)} messages, not one")
        is_better = side == "preferred_output"
        tools = record["input"].get("tools") or None
        yield Rating(prompt, answer[0], is_better, str(record.get("id", "")), kind="pair", tools=tools)


def _alpaca(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    _known(record, ALPACA_KEYS | {"id"})
    prompt: list[Message] = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    for question, reply in record.get("history") or []:
        prompt += [{"role": "user", "content": question}, assistant(reply)]
    text = "\n".join(part for part in (record.get("instruction"), record.get("input")) if part)
    prompt.append({"role": "user", "content": text})
    name = str(record.get("id", ""))
    if "kto_tag" in record:
        yield Rating(prompt, assistant(record.get("output")), record["kto_tag"], name, kind="label")
        return
    for side in ("chosen", "rejected"):
        yield Rating(prompt, assistant(record[side]), side == "chosen", name, kind="pair")


def _swift(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    _known(record, SWIFT_KEYS)
    talk = messages(record["messages"])
    if not talk or talk[-1]["role"] != "assistant":
        raise RowProblem("'messages' does not end with the assistant's answer")
    rejected = record.get("rejected_response")
    given = record.get("label")
    if rejected is None and given is None:
        raise LeftOut("no rating")
    if rejected is not None and given is not None:
        raise RowProblem("a row with 'label' and 'rejected_response': is it one answer, or two?")
    base = Rating(talk[:-1], talk[-1], given, text_of(record.get("id")) or "", kind="label", tools=record.get("tools"))
    if rejected is None:
        yield base
        return
    if not isinstance(rejected, str):
        raise RowProblem(f"'rejected_response' is {type(rejected).__name__}, not text")
    yield base._replace(value=True, kind="pair")
    yield base._replace(answer=assistant(rejected), value=False, kind="pair")


OPENAI_DPO = Source("openai-dpo", "OpenAI's preference rows", lambda record: record.keys() >= DPO_KEYS, _dpo)
LLAMA_FACTORY = Source(
    "llama-factory",
    "LLaMA-Factory's rows (alpaca)",
    lambda record: "instruction" in record and ("kto_tag" in record or {"chosen", "rejected"} <= record.keys()),
    _alpaca,
)
MS_SWIFT = Source(
    "ms-swift",
    "ms-swift's rows",
    lambda record: (
        "messages" in record and ("rejected_response" in record or isinstance(record.get("label"), bool | int | float))
    ),
    _swift,
)
