"""Pushes a bundle in a process of its own that can be killed, again and again, for the price of one start.

Run as a script, it reads "start" from its standard input, forks a child that says its process id and waits for "go",
lets it push, and says how it ended. It has no threads, so that forking is safe.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


class PushServer:
    """The test's side."""

    def __init__(self, bundle: Path, digest: str, target: tuple[object, ...], endpoint: str, token: str) -> None:
        from kto_release.release.options import Target

        arguments = repr(Target(*target)._asdict())  # type: ignore[arg-type]
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(bundle), digest, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            text=True,
        )

    def _line(self) -> str:
        assert self.process.stdout is not None, "started with a pipe"
        return self.process.stdout.readline().strip()

    def _send(self, word: str) -> None:
        assert self.process.stdin is not None, "started with a pipe"
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def start(self) -> int:
        """Fork a child that is ready to push; its process id."""
        self._send("start")
        return int(self._line())

    def go(self) -> str:
        """Let the child push; "done", "killed", or the error."""
        self._send("go")
        return self._line()

    def close(self) -> None:
        self._send("stop")
        self.process.wait(timeout=30)


def _read() -> str:
    """One line of standard input, without taking more: parent and child share it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return "stop"
        line += byte
    return line.decode().strip()


def _say(text: str) -> None:
    os.write(1, (text.replace("\n", " ") + "\n").encode())


def _serve(bundle: Path, digest: str, arguments: str) -> None:
    from ast import literal_eval

    from kto_release.errors import HubError
    from kto_release.release.hub import push
    from kto_release.release.options import Target

    target = Target(**literal_eval(arguments))
    while _read() == "start":
        child = os.fork()
        if child == 0:
            _say(str(os.getpid()))
            _read()
            try:
                push(bundle, digest, target)
                _say("done")
            except HubError as error:
                _say(f"error: {error}")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            _say("killed")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
