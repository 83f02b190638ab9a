"""Renders chat templates that nobody here wrote: run as a program of its own, with limits of memory and time.

`sandbox.py` starts it, and sends one request a line as JSON on standard input:

    {"source", "tokens", "moment", "memory", "seconds", "longest",
     "conversations": [{"messages", "tools", "documents", "prompt", "variables"}]}

Each is answered by a line on standard output: {"fatal": what breaks a limit, or null, "texts": [{"text", "spans"} or
{"refused": why}]}. It imports Jinja alone, and builds the environment that transformers builds
(utils/chat_template_utils.py): the immutable sandbox, loop controls, `{% generation %}`, raise_exception, strftime_now
and a plain tojson; tools and documents are None where there are none, as there.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

FAULTS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What a template's own code can raise."""


class _ChangingError(Exception):
    """The template asks for what is another thing each time."""


class _TooLongError(Exception):
    """The template prints more than anybody could read."""


class _Compiled(NamedTuple):
    template: Any
    clock: dict[str, str | None]
    """What strftime_now reads: "moment"."""
    blocks: list[str]
    """What is printed so far."""
    spans: list[tuple[int, int]]
    """Where in it the text between the marks {% generation %} stands."""


@lru_cache(maxsize=8)
def _compiled(source: str) -> _Compiled:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    clock: dict[str, str | None] = {}
    blocks: list[str] = []
    spans: list[tuple[int, int]] = []

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            text, start = caller(), sum(map(len, blocks))
            spans.append((start, start + len(text)))
            return text

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    def changing(*_: Any, **__: Any) -> None:
        raise _ChangingError

    def now(form: str) -> str:
        moment = clock["moment"]
        # As transformers does: a moment without a time zone.
        return (datetime.fromisoformat(moment) if moment else datetime.now()).strftime(form)  # noqa: DTZ005

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
    environment.filters["random"] = changing
    environment.globals["lipsum"] = changing
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = now
    return _Compiled(environment.from_string(source), clock, blocks, spans)


def _one(compiled: _Compiled, conversation: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    from jinja2 import TemplateError
    from jinja2.exceptions import SecurityError

    compiled.blocks.clear()
    compiled.spans.clear()
    length = 0
    try:
        for block in compiled.template.generate(
            messages=conversation["messages"],
            tools=conversation["tools"],
            documents=conversation["documents"],
            add_generation_prompt=conversation["prompt"],
            **request["tokens"],
            **conversation["variables"],
        ):
            compiled.blocks.append(block)
            length += len(block)
            if length > request["longest"]:
                raise _TooLongError
    except SecurityError:
        raise
    except TemplateError as error:
        return {"refused": _first_line(error), "broken": None}
    except FAULTS as fault:
        return {"refused": _first_line(fault), "broken": f"{type(fault).__name__}: {fault}"}
    return {"text": "".join(compiled.blocks), "spans": list(compiled.spans)}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.exceptions import SecurityError

    try:
        compiled = _compiled(request["source"])
        compiled.clock["moment"] = request["moment"]
        return {"fatal": None, "texts": [_one(compiled, each, request) for each in request["conversations"]]}
    except MemoryError:
        return {"fatal": f"needs more than {request['memory'] // 2**20} MiB of memory"}
    except _TooLongError:
        return {"fatal": f"prints more than {request['longest']:,} characters of one conversation"}
    except _ChangingError:
        return {"fatal": "draws at random, so that a prompt would be another one each time"}
    except SecurityError as error:
        return {"fatal": f"breaks out of the sandbox: {error}"}
    except TemplateSyntaxError as error:
        return {"fatal": f"line {error.lineno}: {error.message}"}
    except (TemplateError, *FAULTS) as fault:
        return {"fatal": f"fails: {type(fault).__name__}: {fault}"}


def _limit(request: dict[str, Any]) -> None:
    if sys.platform != "darwin":  # which knows this limit and refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + request["seconds"] + 1
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _main() -> None:
    for request in _requests():
        _limit(request)
        try:
            told = json.dumps(_answer(request))
        except MemoryError:
            told = json.dumps({"fatal": f"needs more than {request['memory'] // 2**20} MiB of memory"})
        sys.stdout.write(told + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
