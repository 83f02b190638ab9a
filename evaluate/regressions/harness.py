"""lm-evaluation-harness on one model: its weights as published, under the template that it was trained with."""

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kto_release.errors import EngineError, RecipeError
from kto_release.evaluate.candidates import Candidate
from kto_release.evaluate.regressions.logs import Scored, of_lm_eval


def refuse_missing() -> None:
    """Raise `EngineError` where lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise EngineError(
            "eval.regressions needs lm-evaluation-harness, which is not installed",
            todo="pip install 'kto-release[regressions]', or read logs instead: eval.regression_logs",
        )


def run_harness(
    candidate: Candidate, tasks: Sequence[str], *, limit: int | None, include: Path | None
) -> dict[str, Scored]:
    """Every sample's value by task. Raises `RecipeError` for a task that there is not, `EngineError` for a failure."""
    import torch  # these bring seconds, and the extra
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(include) if include else None)
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise RecipeError(
            f"eval.regressions: no such tasks: {', '.join(unknown)}",
            expected="names of lm-evaluation-harness's tasks, or of files in eval.regression_tasks",
            todo="lm-eval ls tasks",
        )
    with tempfile.TemporaryDirectory() as folder:
        candidate.tokenizer.save_pretrained(folder)  # with the template in it: the same one for both models
        arguments = {
            "pretrained": str(candidate.model.folder),
            "tokenizer": folder,
            "dtype": candidate.model.dtype,
            "trust_remote_code": candidate.model.trust_remote_code,
        }
        found: dict[str, Any] | None = simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=list(tasks),
            limit=limit,
            device="cuda" if torch.cuda.is_available() else "cpu",
            apply_chat_template=True,
            log_samples=True,
            task_manager=manager,
            bootstrap_iters=0,
        )
    samples = (found or {}).get("samples") or {}
    if not samples:
        raise EngineError(f"lm-evaluation-harness gave no samples of {', '.join(tasks)}")
    return {name: of_lm_eval(rows) for name, rows in samples.items()}
