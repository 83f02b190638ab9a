"""metrics.jsonl and the progress display of one iteration, as a transformers callback."""

import json
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID, TextColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kto_release import console
from kto_release.files import append_jsonl, read_jsonl, write_atomically


class MetricsCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes every step's metrics, and shows how far the iteration is.

    Args:
        path: metrics.jsonl; rows after step `done` are removed, since these steps are done again.
        title: what the display says.
        done: steps that a checkpoint holds already.
    """

    def __init__(self, path: Path, title: str, done: int) -> None:
        self.path, self.title = path, title
        rows = read_jsonl(path)
        kept = [row for row in rows if row["step"] <= done]
        if len(kept) < len(rows):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.seconds_before = float(kept[-1]["seconds"]) if kept else 0.0
        self.tokens_before = float(kept[-1]["tokens"]) if kept else 0.0
        self.feedback = 0.0
        self.display: Progress | None = None
        self.task: TaskID | None = None
        self._context: Any = None
        self.started = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock and the display."""
        del args, control
        self.started = time.monotonic()
        if state.is_world_process_zero:
            self._context = console.progress(TextColumn("{task.fields[rates]}", markup=False))
            self.display = self._context.__enter__()
            self.task = self.display.add_task(self.title, total=state.max_steps, completed=state.global_step, rates="")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Write one step."""
        del args, control
        if "kl/raw" not in logs or not state.is_world_process_zero:
            return
        elapsed = time.monotonic() - self.started
        self.feedback += logs["feedback"]
        row = {
            "step": state.global_step,
            **{name: float(value) for name, value in sorted(logs.items()) if name != "epoch"},
            "tokens": self.tokens_before + logs["tokens"],
            "seconds": round(self.seconds_before + elapsed, 3),
        }
        append_jsonl(self.path, row)
        if self.display is not None and self.task is not None:
            rates = f"loss {row['loss']:.4f}  kl {row['kl']:.3f}  {self.feedback / elapsed:.1f} rows/s"
            rates += f"  {logs['tokens'] / elapsed:,.0f} tokens/s"
            self.display.update(self.task, completed=state.global_step, rates=rates)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """No checkpoint at the last step: the model itself is saved right after."""
        del args
        if state.global_step >= state.max_steps:
            control.should_save = False

    def close(self) -> None:
        """End the display."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the display."""
        del args, state, control
        self.close()
