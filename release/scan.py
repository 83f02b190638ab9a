"""What must not be in a release: secrets, and paths of the machine that made it.

A finding names the file, the line and the kind, never the text itself: the finding is printed and kept.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "an OpenAI or Anthropic key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    "a Google key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s:@\"']+@"),
}
LOCAL_PATH = re.compile(
    r"(?<![\w.:/~-])(?:/(?:home|Users|root|mnt|tmp|var|opt|work|workspace|scratch|data|private|media|srv|gpfs)"
    r"/[\w.@-]+|[A-Za-z]:\\(?:Users|Windows|Temp)\\|~/[\w.-]+/)"
)
VOCABULARY = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"})
"""Files that hold pieces of other people's text: a path in them is no path of this machine."""
NAMES_OF_SECRETS = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL")
SHORTEST_SECRET = 12
"""Characters; a shorter value of a variable would be found in ordinary text."""


class Finding(NamedTuple):
    """One thing that may not be published."""

    file: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.kind}"


def scan(folder: Path, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Everything in a bundle that must not be published.

    `environment` is what the values of secret variables are taken from: os.environ where null.
    """
    values = secret_values(os.environ if environment is None else environment)
    findings = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        findings += [Finding(name, line, kind) for line, kind in _scan_file(path, values)]
    return findings


def secret_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Values of the variables whose names promise a secret, by name."""
    return {
        name: value.strip()
        for name, value in environment.items()
        if NAMES_OF_SECRETS.search(name.upper())
        and len(value.strip()) >= SHORTEST_SECRET
        # The name of a file that holds a key is no secret, and its path is found as such.
        and not value.startswith("/")
    }


def _scan_file(path: Path, values: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    text = _header(path) if path.suffix == ".safetensors" else path.read_bytes().decode("utf-8", errors="replace")
    home = str(Path.home())
    for number, line in enumerate(text.splitlines(), 1):
        for kind, pattern in SECRETS.items():
            if pattern.search(line):
                yield number, kind
        for name, value in values.items():
            if value in line:
                yield number, f"the value of the environment variable {name}"
        if path.name in VOCABULARY or path.suffix in (".png", ".model"):
            continue
        if LOCAL_PATH.search(line) or (len(home) > 1 and f"{home}/" in line):
            yield number, "a path of the machine that made it"


def _header(path: Path) -> str:
    """The JSON at the start of a safetensors file: names, and metadata that anybody may have written to."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, 100_000_000))
    try:
        return json.dumps(json.loads(header).get("__metadata__", {}))
    except ValueError:
        return ""
