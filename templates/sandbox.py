"""Every chat template is rendered in one child process, with limits of memory and time.

Jinja's sandbox stops attribute access and imports, but neither memory nor time: `'x' * 10**10` or nested loops in a
model's template would take this process with them. What looks harmless in samples may not be so in a real conversation,
so nothing is ever rendered here: the child renders the samples, with tools and documents too, and then each
conversation.
"""

import atexit
import contextlib
import functools
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import ModelError
from kto_release.templates.samples import SAMPLES, Message

MEMORY = 2**30
"""Address space of the child, in bytes: Python with Jinja needs about a tenth of it."""
SECONDS = 10
"""CPU time of the child for one request; real templates take milliseconds."""
PATIENCE = 12
"""Wall time is this many times the CPU time, for machines that are busy."""
LONGEST = 2**24
"""Characters that one conversation may become."""
AT_ONCE = 256
"""Conversations of one request."""
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
DOCUMENT = {"title": "France", "text": "Its capital is Paris."}


class Text(NamedTuple):
    """A conversation as a template prints it."""

    text: str | None
    """None where the template refuses it."""
    refused: str | None = None
    """Its words."""
    spans: tuple[tuple[int, int], ...] = ()
    """Where in the text that stands which the template marks as the model's."""
    broken: str | None = None
    """The error, where it refuses by a fault of its own."""


class Asked(NamedTuple):
    """A conversation to render."""

    messages: Sequence[Message]
    prompt: bool
    """Whether to add what makes the model answer."""
    tools: Sequence[Any] | None = None
    documents: Sequence[Any] | None = None
    variables: Mapping[str, Any] | None = None
    """Further ones for the template, such as enable_thinking."""


def render_apart(
    source: str, tokens: dict[str, str], conversations: Sequence[Asked], moment: str | None = None
) -> list[Text]:
    """The conversations as the template prints them, in order.

    `tokens` are the tokenizer's special tokens by name, `moment` is what the template's clock says (null: now). Raises
    `ModelError` where the template breaks the limits or the sandbox.
    """
    found: list[Text] = []
    for start in range(0, len(conversations), AT_ONCE):
        told = _ask(source, tokens, conversations[start : start + AT_ONCE], moment)
        if told["fatal"] is not None:
            raise ModelError(
                f"the chat template {told['fatal']}",
                expected=f"Jinja that renders a conversation within {SECONDS} s and {MEMORY // 2**20} MiB,"
                " without leaving the sandbox",
                todo="take another template: model.template",
            )
        found += [
            Text(each.get("text"), each.get("refused"), tuple(map(tuple, each.get("spans", ()))), each.get("broken"))
            for each in told["texts"]
        ]
    return found


def refuse_unsafe(source: str, tokens: dict[str, str]) -> None:
    """Raise `ModelError` where the template breaks the limits or the sandbox, or renders no sample conversation.

    `tokens` are the tokenizer's special tokens by name. A template is tried once in a process.
    """
    problem = _problem(source, tuple(sorted(tokens.items())))
    if problem is not None:
        raise ModelError(
            f"the chat template {problem}",
            expected="Jinja that renders a short conversation",
            todo="take another template: model.template",
        )


@functools.lru_cache(maxsize=64)
def _problem(source: str, tokens: tuple[tuple[str, str], ...]) -> str | None:
    prompts = render_apart(source, dict(tokens), [Asked(sample.prompt, True) for sample in SAMPLES])
    broken = next((text.broken for text in prompts if text.broken), None)
    if broken is not None:
        return f"fails: {broken}"
    if all(text.text is None for text in prompts):
        return f"refuses every conversation: {prompts[-1].refused}"
    # Whatever these give: a template may know no tools. Only the limits count, and that nothing changes by itself.
    others = [Asked(sample.whole, False) for sample in SAMPLES]
    others += [Asked(SAMPLES[0].prompt, True, tools=[TOOL]), Asked(SAMPLES[0].prompt, True, documents=[DOCUMENT])]
    render_apart(source, dict(tokens), others)
    moment = "2026-01-01T00:00:00"
    twice = [render_apart(source, dict(tokens), [Asked(SAMPLES[1].prompt, True)], moment) for _ in range(2)]
    return None if twice[0] == twice[1] else "renders the same conversation differently each time"


class _Child:
    """The process that renders, as long as this one lives or it breaks a limit."""

    def __init__(self) -> None:
        # No secret of this process reaches the child, and none of its settings either.
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("sandbox_program.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us: we end it
        )

    def ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        """The child's answer, or {"fatal": why there is none}."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            return {"fatal": "can't be rendered: its process has no pipes"}
        with contextlib.suppress(BrokenPipeError):
            stdin.write(request + b"\n")
            stdin.flush()
        parts: list[bytes] = []
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as waiting:
            waiting.register(stdout, selectors.EVENT_READ)
            while not (parts and parts[-1].endswith(b"\n")):
                if not waiting.select(max(0.0, until - time.monotonic())):
                    return {"fatal": f"takes longer than {seconds:.0f} s"}
                part = os.read(stdout.fileno(), 2**20)
                if not part:
                    return {"fatal": self._why()}
                parts.append(part)
        answer: dict[str, Any] = json.loads(b"".join(parts))
        return answer

    def _why(self) -> str:
        if self.process.wait() < 0:  # the system ended it: out of CPU time (SIGXCPU, SIGKILL)
            return f"takes longer than {SECONDS} s of a processor"
        lines = self.process.stderr.read().decode(errors="replace").strip().splitlines() if self.process.stderr else []
        return f"breaks the process that renders it: {lines[-1] if lines else 'no output'}"

    def end(self) -> None:
        if self.owner != os.getpid():  # a copy of the process that started it: not ours to end
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


_children: dict[str, _Child] = {}
_one_at_a_time = threading.Lock()


@atexit.register
def end_child() -> None:
    """End the process that renders; the next conversation starts another."""
    child = _children.pop("one", None)
    if child is not None:
        child.end()


def _ask(source: str, tokens: dict[str, str], conversations: Sequence[Asked], moment: str | None) -> dict[str, Any]:
    request = {
        "source": source,
        "tokens": tokens,
        "conversations": [
            {
                "messages": [dict(message) for message in each.messages],
                "tools": list(each.tools) if each.tools else None,
                "documents": list(each.documents) if each.documents else None,
                "prompt": each.prompt,
                "variables": dict(each.variables or {}),
            }
            for each in conversations
        ],
        "moment": moment,
        "memory": MEMORY,
        "seconds": SECONDS,
        "longest": LONGEST,
    }
    # What is no JSON (a date of a Parquet file among a tool's arguments) is printed as its text.
    line = json.dumps(request, default=str).encode()
    with _one_at_a_time:
        child = _children.get("one")
        if child is None or child.owner != os.getpid() or child.process.poll() is not None:
            end_child()
            child = _children["one"] = _Child()
        answer = child.ask(line, SECONDS * PATIENCE)
        if answer["fatal"] is not None:
            end_child()
    return answer
