"""A judge on loopback: an OpenAI-compatible chat endpoint whose preferences are known, and which can misbehave.

Verdicts come from a function of (instruction, first output, second output) to the probability that the first is better.
Faults are queued: each request takes the next one off the queue, and only an empty queue is answered properly. The
server counts what it was asked, so a test can tell what was paid for.
"""

import json
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from kto_release.evaluate.judges.prompt import PLACE, load_prompt

Preference = Callable[[str, str, str], float]


class Asked(NamedTuple):
    """One question, as it arrived."""

    instruction: str
    first: str
    second: str


class Fault(NamedTuple):
    """One bad answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """Instead of a proper answer's bytes."""
    hang: float = 0.0
    """Seconds before anything is sent."""
    reset: bool = False
    """Cut the connection before anything is sent."""
    half: bool = False
    """Promise a whole body, send half of it and hang up."""
    change: Callable[[dict[str, Any]], None] | None = None
    """Spoil a proper answer."""


def error(status: int, message: str, code: str | None = None, **headers: str) -> Fault:
    """An error in OpenAI's form; `retry_after="1"` becomes the header Retry-After."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    return Fault(status, tuple((k.replace("_", "-"), v) for k, v in headers.items()), json.dumps(body).encode())


class JudgeServer:
    """See `judge_server`."""

    def __init__(self, prefer: Preference, delay: float) -> None:
        self.prefer, self.delay = prefer, delay
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        """Answers everything, once the queue is empty."""
        self.asked: list[Asked] = []
        """Questions that were answered properly."""
        self.requests = 0
        self.arrivals: list[float] = []
        """Monotonic time of each request."""
        self.keys: Counter[str] = Counter()
        """Authorization headers."""
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._pattern = _pattern()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.request_queue_size = 256

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def read(self, body: dict[str, Any]) -> Asked | None:
        """The question in a request; None where the prompt's structure was changed."""
        if [message["role"] for message in body["messages"]] != ["system", "user"]:
            return None
        match = self._pattern.fullmatch(body["messages"][1]["content"])
        return Asked(match["instruction"], match["output_1"], match["output_2"]) if match else None

    def answer(self, asked: Asked) -> dict[str, Any]:
        """A proper completion."""
        p = self.prefer(*asked)
        top = [{"token": "m", "logprob": _log(p)}, {"token": "M", "logprob": _log(1 - p)}]
        top.sort(key=lambda entry: -float(entry["logprob"]))
        token = top[0]["token"]
        return {
            "id": "x",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "length",
                    "message": {"role": "assistant", "content": token},
                    "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
                }
            ],
            "usage": {"prompt_tokens": 400, "completion_tokens": 1, "total_tokens": 401},
        }


def _log(p: float) -> float:
    from math import log

    return log(p) if p > 0 else -100.0


def _pattern() -> re.Pattern[str]:
    """Finds what was filled into the official prompt's user turn."""
    text = load_prompt("alpaca_eval").turns[1][1]
    parts, end = [], 0
    for match in PLACE.finditer(text):
        parts.append(re.escape(text[end : match.start()]) + f"(?P<{match[1]}>.*)")
        end = match.end()
    return re.compile("".join(parts) + re.escape(text[end:]), re.DOTALL)


def _handler(judge: JudgeServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class in a function, for its judge
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Without it each answer waits for an acknowledgement of its headers: 40 ms.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with judge.lock:
                judge.requests += 1
                judge.arrivals.append(time.monotonic())
                judge.keys[self.headers.get("authorization", "")] += 1
                judge.bodies.append(body)
                fault = judge.faults.popleft() if judge.faults else judge.always
            if judge.delay:
                time.sleep(judge.delay)
            asked = judge.read(body)
            if asked is None:
                asked, fault = Asked("", "", ""), error(422, "these are not the messages of AlpacaEval's prompt")
            self._send(asked, fault or Fault())

        def _send(self, asked: Asked, fault: Fault) -> None:
            time.sleep(fault.hang)
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            content = judge.answer(asked)
            if fault.change:
                fault.change(content)
            sent = fault.body if fault.body is not None else json.dumps(content).encode()
            if fault == Fault():
                with judge.lock:
                    judge.asked.append(asked)
            html = sent.startswith(b"<")
            self.send_response(fault.status)
            self.send_header("content-type", "text/html" if html else "application/json")
            self.send_header("content-length", str(len(sent)))
            for name, value in fault.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent[: len(sent) // 2] if fault.half else sent)
            if fault.half:
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def judge_server(prefer: Preference | None = None, *, delay: float = 0.0) -> Iterator[JudgeServer]:
    """A running judge; by default it prefers the longer answer with probability 3/4, and answers at once."""
    server = JudgeServer(prefer or (lambda _, first, second: 0.75 if len(first) > len(second) else 0.25), delay)
    server.start()
    try:
        yield server
    finally:
        server.stop()
