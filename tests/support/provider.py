"""A provider on loopback that answers as one of many real kinds do: in words, after thoughts, cut, made up, refused.

The better answer is the one with the higher mark "(q=N)" in it; without marks, the true answer of the trial's pairs.
"""

import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from kto_release.judges.trial import PAIRS

Answer = tuple[int, dict[str, Any]]


class Asked(NamedTuple):
    """What a profile answers to."""

    body: dict[str, Any]
    first: float
    """Probability that the first answer is better."""
    number: int
    """Of the request, from 1."""
    text: str
    """All messages."""

    @property
    def letter(self) -> str:
        return "m" if self.first >= 0.5 else "M"


Profile = Callable[[Asked], Answer]


def says(content: Any, finish: str = "stop", logprobs: Any = None, **message: Any) -> Answer:
    """A completion in words."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 500, "completion_tokens": 20}
    return 200, {"model": "judge-1", "choices": [{**choice, "logprobs": logprobs}], "usage": usage}


def refuses(message: str, status: int = 400) -> Answer:
    return status, {"error": {"message": message, "code": None}}


def likely(asked: Asked, letters: tuple[str, str] = ("m", "M")) -> list[dict[str, Any]]:
    """The letters' log-probabilities, likeliest first, and eighteen tokens of no weight."""
    shares = sorted(zip(letters, (asked.first, 1 - asked.first), strict=True), key=lambda item: -item[1])
    top = [{"token": letter, "logprob": math.log(share)} for letter, share in shares]
    return [*top, *({"token": f"t{n}", "logprob": -20.0 - n} for n in range(18))]


def with_top(asked: Asked, top: list[dict[str, Any]]) -> Answer:
    return says(asked.letter, "length", {"content": [{"token": asked.letter, "top_logprobs": top}]})


def _first(text: str) -> float:
    marks = [int(mark) for mark in re.findall(r"\(q=(\d+)\)", text)]
    if len(marks) >= 2:
        return 1 / (1 + math.exp(-0.7 * (marks[-2] - marks[-1])))
    for _, better, worse in PAIRS:
        if better in text and worse in text:
            return 0.95 if text.rindex(better) < text.rindex(worse) else 0.05
    return 0.9


class Provider:
    """See `provider`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with provider.lock:
                provider.bodies.append(body)
                number = len(provider.bodies)
            text = "\n".join(message["content"] for message in body["messages"])
            status, answer = provider.profile(Asked(body, _first(text), number, text))
            sent = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def provider(profile: Profile) -> Iterator[Provider]:
    """A running provider."""
    server = Provider(profile)
    server.start()
    try:
        yield server
    finally:
        server.stop()
