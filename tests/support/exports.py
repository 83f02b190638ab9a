"""Write an invented export, import it by the command, and read what came of it."""

import json
from pathlib import Path
from typing import NamedTuple

from command import Result, run_command


class Imported(NamedTuple):
    """What an import gave."""

    result: Result
    rows: list[dict]
    account: dict

    @property
    def talks(self):
        """(roles and texts of the prompt, completion, label) of each row."""
        return [
            (" | ".join(f"{m['role']}: {m['content']}" for m in row["prompt"]), row["completion"], row["label"])
            for row in self.rows
        ]

    @property
    def left_out(self):
        return self.account["left_out"]


class Importer:
    """`kto-release import` on records that are written to files first."""

    def __init__(self, monkeypatch, capfd, folder: Path):
        self._monkeypatch, self._capfd, self.folder = monkeypatch, capfd, folder
        self.out = folder / "feedback.jsonl"
        monkeypatch.setenv("KTO_RELEASE_SALT", "salt of the tests")

    def file(self, name: str, records) -> Path:
        path = self.folder / name
        lines = name.endswith(".jsonl")
        text = "".join(json.dumps(r) + "\n" for r in records) if lines else json.dumps(records)
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, *words) -> Result:
        return run_command(self._monkeypatch, self._capfd, "import", *words)

    def __call__(self, source: str, records, *options) -> Imported:
        """Import records (a list: one file of JSON lines; a dict: file name to content)."""
        files = records if isinstance(records, dict) else {"export.jsonl": records}
        paths = [self.file(name, content) for name, content in files.items()]
        result = self.run(source, *paths, "--out", self.out, *options)
        assert result.code == 0, result.err
        rows = [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]
        account = json.loads((self.folder / "feedback.jsonl.import.json").read_text(encoding="utf-8"))
        assert account["records"] + account["more_verdicts"] == account["rows"] + sum(account["left_out"].values())
        assert account["rows"] == len(rows)
        return Imported(result, rows, account)
