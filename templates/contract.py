"""The template contract: the same token ids on every road from messages to a model.

`check_contract` runs before training and again before publishing. It tries the sample conversations with the real
tokenizer; each rule that breaks is an error with the ids shown. docs/templates.md states the rules.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from kto_release.errors import ModelError
from kto_release.templates.load import Template, adds_bos, printed, set_template
from kto_release.templates.rendering import Rendered, render, render_feedback, render_text
from kto_release.templates.samples import SAMPLES, SYSTEM_SAMPLE, Sample

SHOWN_IDS = 24


class Finding(NamedTuple):
    """A rule of the contract that this template breaks with this tokenizer."""

    rule: Literal["roads", "bos", "no eos", "prefix", "end", "mask"]
    sample: str
    """Name of the conversation that shows it."""
    problem: str
    """What is wrong, with the ids."""


def check_contract(tokenizer: Any, template: Template, stops: Collection[int]) -> None:
    """Raise `ModelError` with every broken rule; `stops` are the ids of `generation_config.eos_token_id`.

    The tokenizer's own template is left as it was.
    """
    found = findings(tokenizer, template, stops)
    if not found:
        return
    lines = []
    for rule in dict.fromkeys(finding.rule for finding in found):
        first, *others = [finding for finding in found if finding.rule == rule]
        more = f" (and in {len(others)} more sample conversations)" if others else ""
        lines.append(f"  - {rule}: {first.sample}: {first.problem}{more}")
    raise ModelError(
        f"the chat template {template.name!r} does not keep its contract with this tokenizer:\n" + "\n".join(lines),
        expected="the same ids whichever way a prompt is made, and answers that end where generation stops",
        todo="docs/templates.md explains each rule; take another model.template, or mend the file",
    )


def findings(tokenizer: Any, template: Template, stops: Collection[int]) -> list[Finding]:
    """Every rule that the template breaks; a sample that it refuses (a system message) is passed over.

    Raises `ModelError` where it refuses a plain question.
    """
    with _wearing(tokenizer, template):
        render_text(tokenizer, SAMPLES[0].prompt, prompt=True)
        rendered = render_feedback(tokenizer, [(sample.prompt, sample.answer) for sample in SAMPLES])
        taken = [(sample, ids) for sample, ids in zip(SAMPLES, rendered, strict=True) if _takes(tokenizer, sample)]
        return [
            Finding(rule, sample.name, problem)
            for sample, ids in taken
            for rule, problem in _broken(tokenizer, template, stops, sample, ids)
        ]


def system_message(tokenizer: Any) -> Literal["supported", "refused", "ignored"]:
    """What the tokenizer's template does with a system message: renders it, refuses it, or drops it in silence."""
    if not _takes(tokenizer, SYSTEM_SAMPLE):
        return "refused"
    said = SYSTEM_SAMPLE.prompt[0]["content"]
    return "supported" if said in render_text(tokenizer, SYSTEM_SAMPLE.prompt, prompt=True) else "ignored"


@contextmanager
def _wearing(tokenizer: Any, template: Template) -> Iterator[None]:
    own = tokenizer.chat_template
    set_template(tokenizer, template)
    try:
        yield
    finally:
        tokenizer.chat_template = own


def _takes(tokenizer: Any, sample: Sample) -> bool:
    try:
        render_text(tokenizer, sample.prompt, prompt=True)
    except ModelError:
        return False
    return True


def _broken(
    tokenizer: Any, template: Template, stops: Collection[int], sample: Sample, ids: Rendered
) -> Iterator[tuple[Literal["roads", "bos", "no eos", "prefix", "end", "mask"], str]]:
    yield from (("roads", problem) for problem in _roads(tokenizer, sample, ids.prompt_ids))
    yield from (("bos", problem) for problem in _bos(tokenizer, template, ids.prompt_ids))
    if ids.prompt_ids[-1] in {*stops, tokenizer.eos_token_id}:
        yield "no eos", f"the prompt ends with EOS: {show(tokenizer, ids.prompt_ids, end=True)}"
    if ids.completion_ids is None:
        whole = render(tokenizer, sample.whole, prompt=False)
        yield "prefix", f"{ids.problem}: {difference(tokenizer, ids.prompt_ids, whole)}"
        return
    yield from (("end", problem) for problem in _end(tokenizer, stops, ids.completion_ids))
    if template.marked:
        yield from (("mask", problem) for problem in _mask(tokenizer, sample, ids))


def _roads(tokenizer: Any, sample: Sample, expected: list[int]) -> Iterator[str]:
    """Every way that people and programs make a prompt, against the ids that training uses."""
    messages = list(sample.prompt)
    text = render_text(tokenizer, messages, prompt=True)
    # The text is printed by a template that prints a text: the template itself is never rendered in this process.
    direct = tokenizer.apply_chat_template(
        messages, chat_template="{{ text }}", text=text, add_generation_prompt=True, return_dict=False
    )
    roads = {
        "apply_chat_template": list(direct),
        "the rendered text without special tokens": tokenizer(text, add_special_tokens=False)["input_ids"],
    }
    if adds_bos(tokenizer):
        # People write the text without BOS, and without the space that a SentencePiece tokenizer puts behind it.
        bare = text.removeprefix(tokenizer.bos_token)
        written = [tokenizer(bare)["input_ids"], tokenizer(bare.removeprefix(" "))["input_ids"]]
        roads["the bare text, to which the tokenizer adds BOS,"] = expected if expected in written else written[1]
    for road, ids in roads.items():
        if ids != expected:
            yield f"{road} gives other ids than training: {difference(tokenizer, expected, ids)}"


def _bos(tokenizer: Any, template: Template, ids: list[int]) -> Iterator[str]:
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    count = len([*takewhile(lambda number: number == bos, ids)])
    if adds_bos(tokenizer) and count == 0:
        yield f"the model uses BOS ({bos}), and the prompt starts without: {show(tokenizer, ids)}"
    # ChatML's turn marker is SmolLM2's BOS token: it then stands at every turn, by the template's own text. And where
    # BOS is EOS (OLMo-2, Pythia, GPT-2), an earlier answer ends with it.
    is_expected = tokenizer.bos_token in template.source or bos == tokenizer.eos_token_id
    if count > 1 or (bos in ids[1:] and not is_expected):
        yield f"more than one BOS ({bos}): {show(tokenizer, ids)}"


def _end(tokenizer: Any, stops: Collection[int], completion: list[int]) -> Iterator[str]:
    at_ends = [place for place, number in enumerate(completion) if number in stops]
    if at_ends == [len(completion) - 1]:
        return
    shown, wanted = show(tokenizer, completion, end=True), sorted(stops)
    if not at_ends:
        yield f"the answer does not end with a token of generation_config.eos_token_id {wanted}: {shown}"
    else:
        yield f"a token of generation_config.eos_token_id {wanted} stands inside the answer: {shown}"


def _mask(tokenizer: Any, sample: Sample, ids: Rendered) -> Iterator[str]:
    """The mask from {% generation %} must be, for the last answer, exactly what is trained on."""
    found = printed(tokenizer, sample.whole, prompt=False)
    encoded = tokenizer(found.text or "", add_special_tokens=False)
    start, trained = len(ids.prompt_ids), len(ids.completion_ids or [])
    mask = [False] * len(encoded["input_ids"])
    for first, end in found.spans:  # as transformers makes the mask of such spans
        token, last = encoded.char_to_token(0, first), encoded.char_to_token(0, end - 1)
        if token is None:
            break
        for place in range(token, len(mask) if last is None else last + 1):
            mask[place] = True
    answered_before = any(message["role"] == "assistant" for message in sample.prompt)
    before = mask[start - 1 : start] if answered_before else mask[:start]
    marked = [place for place, on in enumerate(mask) if on and place >= start]
    if any(before) or marked != list(range(start, start + trained)):
        masked = [number for number, on in zip(encoded["input_ids"], mask, strict=True) if on]
        yield (
            f"the mask of {{% generation %}} covers {show(tokenizer, masked, end=True)}, and trained is"
            f" {show(tokenizer, ids.completion_ids or [], end=True)}"
        )


def show(tokenizer: Any, ids: Sequence[int], *, end: bool = False) -> str:
    """Ids with their tokens, for people: the first ones, or the last."""
    part = list(ids[-SHOWN_IDS:] if end else ids[:SHOWN_IDS])
    tokens = " ".join(map(repr, tokenizer.convert_ids_to_tokens(part)))
    left_out = len(ids) - len(part)
    numbers = ", ".join(map(str, part))
    if left_out:
        numbers = f"… {left_out} more, {numbers}" if end else f"{numbers}, … {left_out} more"
    return f"[{numbers}] = {tokens}"


def difference(tokenizer: Any, expected: Sequence[int], ids: Sequence[int]) -> str:
    """Where two lists of ids part, with the tokens around that place."""
    same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(expected, ids, strict=False))])
    start = max(0, same - 2)
    one, other = (show(tokenizer, part[start : start + 8]) for part in (expected, ids))
    return f"from position {same}: {one} against {other}"
