"""Renders a chat template that nobody here wrote: run as a program of its own, with limits of memory and time.

`sandbox.py` starts it with {"source", "conversations", "tokens", "memory", "seconds"} as JSON on standard input; it
answers with {"rendered": how many, "problem": what broke} on standard output. It imports Jinja alone, and builds the
environment that transformers builds (utils/chat_template_utils.py): the immutable sandbox, loop controls,
`{% generation %}`, raise_exception, strftime_now and a plain tojson.
"""

import json
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

FAULTS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What a template's own code can raise."""


class _RefusalError(Exception):
    """The template said no by raise_exception, as a template may."""


def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            return caller()

    def refuse(message: str) -> None:
        raise _RefusalError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment


def _try(request: dict[str, Any]) -> dict[str, Any]:
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.exceptions import SecurityError

    rendered, refusal = 0, None
    try:
        template = _environment().from_string(request["source"])
        for messages in request["conversations"]:
            try:
                template.render(messages=messages, add_generation_prompt=True, **request["tokens"])
                rendered += 1
            except _RefusalError as error:
                refusal = f"refuses every conversation: {error}"
    except MemoryError:
        return {"rendered": 0, "problem": f"needs more than {request['memory'] // 2**20} MiB of memory"}
    except SecurityError as error:
        return {"rendered": 0, "problem": f"breaks out of the sandbox: {error}"}
    except TemplateSyntaxError as error:
        return {"rendered": 0, "problem": f"line {error.lineno}: {error.message}"}
    except (TemplateError, *FAULTS) as fault:
        return {"rendered": 0, "problem": f"fails: {type(fault).__name__}: {fault}"}
    return {"rendered": rendered, "problem": None if rendered else refusal}


def _main() -> None:
    request = json.load(sys.stdin)
    if sys.platform != "darwin":  # which knows this limit and refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (request["seconds"], request["seconds"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(_try(request), sys.stdout)


if __name__ == "__main__":
    _main()
