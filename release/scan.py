"""What must not be in a release: secrets, and paths of the machine that made it.

A finding names the file, the line and the kind, never the text itself: the finding is printed and kept.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SECRETS = {
    "a Hugging Face token": re.compile(
        r"\b(?:hf_(?:oauth_)?[A-Za-z0-9]{30,}|hf_oauth_\w{20,}|api_org_[A-Za-z0-9]{30,})"
    ),
    "an OpenAI or Anthropic key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a Groq key": re.compile(r"\bgsk_[A-Za-z0-9]{40,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    "a GitLab token": re.compile(r"\bgl(?:pat|dt|rt|ptt|cbt|oas|agent)-[A-Za-z0-9_-]{20,}"),
    "an npm token": re.compile(r"\bnpm_[A-Za-z0-9]{30,}"),
    "a PyPI token": re.compile(r"\bpypi-[A-Za-z0-9_-]{20,}"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a Slack token": re.compile(r"\b(?:xox[abeprs]-|xapp-)[A-Za-z0-9-]{10,}"),
    "a Google key": re.compile(r"\b(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{30,}|GOCSPX-[A-Za-z0-9_-]{20,})"),
    "a key of a model provider": re.compile(r"\b(?:xai-[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{30,}|pplx-[A-Za-z0-9]{40,})"),
    "a Weights & Biases key": re.compile(r"\bwandb_v\d_[A-Za-z0-9_]{30,}"),
    "a Stripe key": re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{20,}"),
    "a JSON Web Token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']*:[^/\s:@\"']+@"),
    "a key in an address": re.compile(
        r"://[^\s\"'<>]*[?&;](?:api[-_]?key|key|token|access[-_]?token|auth|secret|sig|signature|password|pwd"
        r"|x-amz-signature|subscription-key)=[^\s\"'&<>]{8,}",
        re.IGNORECASE,
    ),
}
_ROOTS = (
    "home Users root mnt tmp var opt work workspace workspaces scratch data private media srv gpfs fsx lustre content "
    "Volumes nfs efs ceph beegfs dbfs kaggle"
)
LOCAL_PATH = re.compile(
    rf"(?<![\w.:/~-])(?:/(?:{'|'.join(_ROOTS.split())})/[\w.@-]+"
    r"|[A-Za-z]:[\\/]{1,2}(?:Users|Windows|Temp|Documents and Settings)[\\/]|~/[\w.-]+/)"
)
VOCABULARY = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"})
"""Files that hold pieces of other people's text: a path in them is no path of this machine."""
NAMES_OF_SECRETS = re.compile(
    r"(?:^|_)(?:API_?KEY|APIKEY|ACCESS_?KEY|TOKENS?|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|PAT|DSN)"
    r"(?:_|[0-9]|$)|[A-Z](?:TOKEN|KEY|SECRET|PASSWORD)$"
)
"""Names of variables: whole words, so that TOKENIZER and KEYCLOAK are none."""
NO_SECRETS = re.compile(
    r"(?:^|_)(?:PATH|FILE|DIR|URL|NAME|TYPE|REALM|ENV|SOCK|PARALLELISM|LENGTH|COUNT|ID)$|^(?:OLD)?PWD$"
)
"""Names that speak of a secret without being one."""
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


def secret_values(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Values of the variables whose names promise a secret, by name: their lines, as each is found by itself."""
    found: dict[str, list[str]] = {}
    for name, value in environment.items():
        if not NAMES_OF_SECRETS.search(name.upper()) or NO_SECRETS.search(name.upper()):
            continue
        if value.startswith("/") and Path(value).exists():
            continue  # the name of a file that holds a key is no secret, and its path is found as such
        lines = [line.strip() for line in value.splitlines() if not line.startswith("-----")]
        long = [line for line in lines if len(line) >= SHORTEST_SECRET]
        if long:
            found[name] = long
    return found


def _scan_file(path: Path, values: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, str]]:
    text = _header(path) if path.suffix == ".safetensors" else path.read_bytes().decode("utf-8", errors="replace")
    home = str(Path.home())
    for number, line in enumerate(text.splitlines(), 1):
        for kind, pattern in SECRETS.items():
            if pattern.search(line):
                yield number, kind
        for name, secrets in values.items():
            if any(secret in line for secret in secrets):
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
