"""The command line: light, and what its help says."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "vllm", "datasets", "alpaca_eval", "huggingface_hub", "accelerate", "peft", "sklearn")
COMMANDS = ("train", "eval", "publish", "demo", "verify", "import", "feedback")
SNAPSHOT = Path(__file__).parent / "help.txt"


def helps(cli):
    """The help of the program and of every command, as a terminal of 100 columns shows them."""
    environment = {"COLUMNS": "100", "PATH": "/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
    shown = []
    for command in ((), *((name,) for name in COMMANDS)):
        result = subprocess.run(
            [cli, *command, "--help"], capture_output=True, text=True, check=True, env=environment, timeout=60
        )
        shown.append(f"$ kto-release {' '.join([*command, '--help'])}\n{result.stdout.rstrip()}\n")
    return "\n".join(shown)


def test_help_is_the_snapshot(cli):
    """A changed option shows in tests/kto_release/help.txt; write it anew with `make help-snapshot`."""
    assert helps(cli) == SNAPSHOT.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    """Every help answers at once: none of the machine-learning stack is imported for it."""
    program = (
        "import sys\n"
        "from kto_release.cli import main\n"
        f"sys.argv = ['kto-release', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "heavy: []"


def test_version(cli):
    """--version names the program and its version."""
    from kto_release import __version__

    result = subprocess.run([cli, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == f"kto-release {__version__}\n"


def test_debug_shows_the_traceback(cli, tmp_path):
    """Without --debug an error is a message; with it, the traceback is there too."""
    plain = subprocess.run([cli, "train", tmp_path / "x.yaml"], capture_output=True, text=True, check=False, timeout=60)
    debug = subprocess.run(
        [cli, "--debug", "train", tmp_path / "x.yaml"], capture_output=True, text=True, check=False, timeout=60
    )
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: no such recipe: ")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "RecipeError: no such recipe: " in debug.stderr


@pytest.mark.parametrize("command", ["train", "publish"])
def test_a_recipe_is_required(cli, command):
    """A wrong command line exits with 2."""
    result = subprocess.run([cli, command], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert "Missing argument 'RECIPE'" in result.stderr
