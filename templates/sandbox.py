"""A chat template from elsewhere is first rendered in a child process, with limits of memory and time.

Jinja's sandbox stops attribute access and imports, but neither memory nor time: `'x' * 10**10` or nested loops in a
model's template would take this process with them.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kto_release.errors import ModelError
from kto_release.templates.samples import SAMPLES

MEMORY = 2**30
"""Address space of the child, in bytes: Python with Jinja needs about a tenth of it."""
SECONDS = 10
"""CPU time of the child; real templates take milliseconds."""
PATIENCE = 6
"""Wall time is this many times the CPU time, for machines that are busy."""


def refuse_unsafe(source: str, tokens: dict[str, str]) -> None:
    """Raise `ModelError` where the template breaks the limits or the sandbox, or renders no sample conversation.

    `tokens` are the tokenizer's special tokens by name. A template is tried once in a process.
    """
    problem = _problem(source, tuple(sorted(tokens.items())))
    if problem is not None:
        raise ModelError(
            f"the chat template {problem}",
            expected=f"Jinja that renders a short conversation within {SECONDS} s and {MEMORY // 2**20} MiB,"
            " without leaving the sandbox",
            todo="take another template: model.template",
        )


@functools.lru_cache(maxsize=64)
def _problem(source: str, tokens: tuple[tuple[str, str], ...]) -> str | None:
    request = {
        "source": source,
        "conversations": [[dict(message) for message in sample.prompt] for sample in SAMPLES],
        "tokens": dict(tokens),
        "memory": MEMORY,
        "seconds": SECONDS,
    }
    # No secret of this process reaches the child, and none of its settings either.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        result = subprocess.run(
            [sys.executable, "-I", str(Path(__file__).with_name("sandbox_program.py"))],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=SECONDS * PATIENCE,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"takes longer than {SECONDS * PATIENCE} s"
    return _told(result)


def _told(result: "subprocess.CompletedProcess[bytes]") -> str | None:
    try:
        answer: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        if result.returncode < 0:  # the system ended it: out of CPU time (SIGXCPU, SIGKILL)
            return f"takes longer than {SECONDS} s of a processor"
        return f"breaks the process that renders it: {_last_line(result.stderr)}"
    problem: str | None = answer["problem"]
    return problem


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
