"""AlpacaEval 2.0's own judge: its names, its prompt, and what its recorded judgements know of it."""

from importlib.util import find_spec
from pathlib import Path

from kto_release.digests import sha256_of
from kto_release.errors import ScoreError
from kto_release.records import JudgeFacts

OFFICIAL_JUDGE = "weighted_alpaca_eval_gpt4_turbo"
"""Name of the annotator behind AlpacaEval 2.0's leaderboard."""
OFFICIAL_MODEL = "gpt-4-1106-preview"
"""That annotator's model. It was shut down in March 2026: what it judged is recorded, and nothing new can be."""
OFFICIAL_REFERENCE = "gpt4_1106_preview"
"""Generator of the answers that the leaderboard compares with."""
PROMPT = "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"


def alpaca_eval_folder() -> Path:
    """Folder of the installed alpaca_eval, found without importing it. Raises `ScoreError` where it is missing."""
    spec = find_spec("alpaca_eval")
    if spec is None or spec.origin is None:
        raise ScoreError("alpaca_eval is not installed", todo="pip install alpaca-eval==0.6.6")
    return Path(spec.origin).parent


def official_prompt() -> str:
    """The prompt of AlpacaEval 2.0's judge, as its package ships it."""
    return (alpaca_eval_folder() / PROMPT).read_text(encoding="utf-8")


def official_judge_facts() -> JudgeFacts:
    """The judge behind AlpacaEval 2.0's leaderboard, as its recorded judgements know it."""
    return JudgeFacts(
        kind="recorded",
        orders_known=False,
        model=OFFICIAL_MODEL,
        name=OFFICIAL_JUDGE,
        endpoint=None,
        prompt="alpaca_eval",
        prompt_sha256=sha256_of(official_prompt()),
        swap=False,
        parameters={},
        official=True,
    )


def recorded_judge_facts(name: str, *, model: str | None = None, annotator: str | None = None) -> JudgeFacts:
    """Any other judge of which nothing but recorded judgements is known; `annotator` is what those call it."""
    return JudgeFacts(
        kind="recorded",
        orders_known=False,
        model=model or name,
        name=name,
        endpoint=None,
        prompt="as recorded",
        prompt_sha256=sha256_of(annotator or model or name),
        swap=False,
        parameters={},
        official=False,
    )
