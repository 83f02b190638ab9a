"""What strangers made is looked at in a child process, with limits of memory and time.

A tokenizer of 300 bytes can take all memory, a regular expression all time, and a library that is written in another
language can end the process that calls it. Then only the child ends, and what it was looking at has failed.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kto_release.release.checks.item import Checked, failed
from kto_release.release.contents import Request, look

MEMORY = 4 * 2**30
"""Bytes that the child may take for data; with transformers loaded it has half a GiB."""
SPACE = 16 * 2**30
"""Bytes of addresses that it may use, for systems that count nothing else."""
SECONDS = 60
"""CPU time of the child; importing transformers and reading a large tokenizer take about ten."""
SECONDS_FOR_SCORES = 240
"""The same with --rescore, whose length-controlled rates take a regression."""
PATIENCE = 5
"""Wall time is this many times the CPU time, for machines that are busy."""


def look_apart(request: Request) -> list[Checked]:
    """What `contents.look` finds, found in a child process; what the child could not end has failed."""
    seconds = SECONDS_FOR_SCORES if request.rescore else SECONDS
    command = [sys.executable, "-P", __file__]
    plain = {**request._asdict(), "folder": str(request.folder), "lc_data": request.lc_data and str(request.lc_data)}
    try:
        ended = subprocess.run(
            [*command, str(seconds)],
            input=json.dumps(plain).encode(),
            capture_output=True,
            timeout=seconds * PATIENCE,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        code, output, told = ended.returncode, ended.stdout, ended.stderr
    except subprocess.TimeoutExpired as error:
        code, output, told = -signal.SIGXCPU, error.stdout or b"", b""
    return [*_found(output, code, told, seconds)]


def _found(output: bytes, code: int, told: bytes, seconds: int) -> Iterator[Checked]:
    begun = "the child process"
    for line in output.splitlines():
        try:
            kind, *rest = json.loads(line)
        except ValueError:  # cut by its end
            continue
        if kind == "begin":
            begun = rest[0]
        else:
            yield Checked(*rest)
    if code:
        yield Checked(begun, *failed(f"breaks the process that reads it: {_why(code, told, seconds)}"))


def _why(code: int, told: bytes, seconds: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it takes longer than {seconds} s"
    lines = told.decode(errors="replace").strip().splitlines() or ["no message"]
    memory = [line for line in lines if "memory allocation" in line or line.startswith("MemoryError")]
    if memory:
        return f"it takes more than {MEMORY // 2**30} GiB of memory"
    return lines[-1][:300]


def _main() -> None:
    """The child: reads a request from standard input, and writes what it begins and what it finds, a line each."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)  # what libraries print is no answer
    _limit(int(sys.argv[1]))
    plain: dict[str, Any] = json.load(sys.stdin)
    lc_data = plain["lc_data"]
    request = Request(Path(plain["folder"]), plain["rescore"], lc_data and Path(lc_data), plain["newer"])

    def say(*parts: str) -> None:
        answers.write(json.dumps(parts) + "\n")
        answers.flush()

    for item in look(request, lambda what: say("begin", what)):
        say("item", *item)


def _limit(seconds: int) -> None:
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    if sys.platform != "darwin":  # which knows these limits and refuses to set them
        limits |= {resource.RLIMIT_DATA: MEMORY, resource.RLIMIT_AS: SPACE}
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (allowed, hard))


if __name__ == "__main__":
    _main()
