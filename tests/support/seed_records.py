"""Records of a run of the seed's recipe, as training and evaluation would write them; all numbers are made up.

No two of the numbers that a card shows are equal, so that a test can tell where each of them comes from.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

from kto_release.recipe import Recipe
from kto_release.recipe_file import load_recipe
from kto_release.records import EvalRecord, IterationRecord, KeptFacts, WeightFacts
from kto_release.release.facts import Architecture, CardFacts, PromptFacts, collect_facts
from kto_release.release.licenses import CardLicense

RECIPE = Path(__file__).parents[2] / "recipes" / "contextual-kto-mistral-pairrm.yaml"
BASE = "mistralai/Mistral-7B-Instruct-v0.2"
DATA = "snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset"
BASE_REVISION = "b" * 40
DATA_REVISION = "d" * 40


@functools.cache
def recipe(*overrides: str) -> Recipe:
    """The seed's recipe."""
    return load_recipe(RECIPE, overrides)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def model(number: int) -> dict[str, Any]:
    """Facts of the model after iteration `number`; 0 is the initial one."""
    return {
        "name": f"iteration-{number}" if number else "initial",
        "hub_id": None if number else BASE,
        "revision": None if number else BASE_REVISION,
        "path": f"iteration-{number}/model" if number else None,
        "sha256": digest(f"model {number}"),
        "dtype": "float32" if number else "bfloat16",
        "parameters": 7_241_732_096,
    }


ENVIRONMENT = {
    "kto_release": "0.1.0",
    "git_commit": "c" * 40,
    "git_dirty": False,
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "hardware": "8 x NVIDIA H100 80GB",
    "processes": 8,
    "packages": {"torch": "2.13.0", "transformers": "5.19.0"},
}


SEPARATION: dict[str, Any] = {
    "auc": {"value": 0.71, "low": 0.602, "high": 0.803, "n": 150, "method": "Newcombe's method 5"},
    "length_auc": 0.554,
    "within_lengths": 0.687,
    "desirable": 83,
    "undesirable": 67,
}
"""Of held-out thumbs, where there are no pairs."""


def thumbs_probe(number: int) -> dict[str, Any]:
    """The probe of iteration `number` on thumbs instead of pairs."""
    return plain_iteration(number)["probe"] | {"preference_accuracy": None, "separation": SEPARATION}


def plain_iteration(number: int) -> dict[str, Any]:
    """The record of iteration `number` as plain data, to be changed by tests."""
    return {
        "iteration": number,
        "finished": f"2026-03-0{number}T12:00:00+00:00",
        "recipe_sha256": "e" * 64,
        "template": "tulu_v2",
        "template_sha256": "f" * 64,
        "parent": model(number - 1),
        "reference": model(number - 1),
        "model": model(number),
        "partition": {
            "name": f"train_iteration_{number}",
            "source": [DATA],
            "revision": DATA_REVISION,
            "licenses": {DATA: "apache-2.0"},
            "sha256": digest(f"partition {number}"),
            "kept": {"desirable": 19_000 + number, "undesirable": 18_000 + number},
            "dropped": {"longer than max_length": {"desirable": 230 + number, "undesirable": 340 + number}},
            "truncated": {"desirable": 0, "undesirable": 0},
            "prompts": 19_500 + number,
            "tokens": 26_000_000 + number,
            "longest": 2_040 + number,
            "duplicates": 50 + number,
            "overlaps": {"train_iteration_9": 60 + number, "held out": 0},
        },
        "training": {
            "steps": 1_150 + number,
            "epochs": 1,
            "batch_size": 32,
            "beta": 0.1,
            "learning_rate": 5e-7,
            "desirable_weight": 1.0,
            "undesirable_weight": 1.0,
            "lora": None,
            "precision": "bf16",
            "max_length": 2_048,
            "tokens_computed": 80_000_000,
            "seconds": 3_600.0 * number,
            "first": {"loss": 0.5, "kl": 0.0},
            "last": {"loss": 0.4, "kl": 1.0},
        },
        "probe": {
            "preference_accuracy": {
                "value": 0.61 + number / 100,
                "low": 0.571 + number / 100,
                "high": 0.652 + number / 100,
                "n": 994,
                "method": "Wilson",
            },
            "kl_initial": 3.31 * number,
            "kl_previous": 2.17 * number,
            "mean_length": 301.1 + number,
            "ended": 0.875,
            "repetition": 0.0625,
            "answers": 8,
        },
        "logprobs": {},
        "environment": ENVIRONMENT,
    }


def plain_evaluation(number: int, judge: str = "gpt-4.1-2025-04-14") -> dict[str, Any]:
    """The record of an evaluation of the model after iteration `number`, as plain data."""
    win_rate, controlled = 17.11 + 4.1 * number, 15.52 + 3.7 * number
    return {
        "finished": f"2026-03-1{number}T12:00:00+00:00",
        "score": f"AlpacaEval 2.0 win rate, judged by {judge}",
        "win_rate": win_rate,
        "standard_error": 1.3,
        "discrete_win_rate": win_rate + 1,
        "length_controlled_winrate": controlled,
        "n_total": 805,
        "n_missing": 0,
        "n_failed": 0,
        "avg_length": 2_400 + number,
        "partial": False,
        "model": model(number),
        "instructions": "alpaca_eval",
        "instructions_sha256": "1" * 64,
        "instructions_revision": "2" * 40,
        "is_alpaca_eval": True,
        "reference": "gpt4_1106_preview",
        "reference_sha256": "3" * 64,
        "generation": {
            "engine": "vllm",
            "engine_version": "0.32.0",
            "dtype": "bfloat16",
            "temperature": 0.7,
            "top_p": 0.95,
            "top_k": None,
            "max_tokens": 2_048,
            "seed": 0,
            "samples": 1,
            "seconds": 600.0,
            "tokens": 400_000,
        },
        "judge": {
            "kind": "openai",
            "model": judge,
            "name": judge,
            "endpoint": "api.openai.com",
            "prompt": "alpaca_eval",
            "prompt_sha256": "4" * 64,
            "swap": False,
            "parameters": {},
            "official": False,
        },
        "intervals": {
            "win_rate": {
                "value": win_rate,
                "low": win_rate - 2.6,
                "high": win_rate + 2.8,
                "n": 805,
                "method": "percentile bootstrap over instructions",
            },
            "length_controlled_winrate": {
                "value": controlled,
                "low": controlled - 3.3,
                "high": controlled + 3.4,
                "n": 805,
                "method": "percentile bootstrap over instructions, refitted",
            },
        },
        "variance": {"instructions": 1.7, "generation": None, "judge": None},
        "position_bias": None,
        "self_consistency": None,
        "answer_mass": {"mean": 0.998, "min": 0.93, "below": 0.0},
        "reliable": True,
        "unreliable_because": [],
        "screening": {"empty": 0, "much_longer": 7, "trained_on": 0},
        "gamed": [],
        "estimated": None,
        "environment": ENVIRONMENT,
    }


def iterations(count: int = 3) -> list[IterationRecord]:
    return [IterationRecord.model_validate(plain_iteration(number)) for number in range(1, count + 1)]


def evaluations(count: int = 3) -> list[EvalRecord]:
    """Of the initial model and each iteration."""
    return [EvalRecord.model_validate(plain_evaluation(number)) for number in range(count + 1)]


def weights(**changes: Any) -> WeightFacts:
    """The published weights, in order."""
    plain: dict[str, Any] = {
        "source_sha256": digest("model 3"),
        "base_sha256": digest("model 0"),
        "sha256": "5" * 64,
        "requested": "base",
        "dtype": "bfloat16",
        "files": {"model-00001-of-00003.safetensors": "6" * 64},
        "bytes": 14_483_500_000,
        "tensors": 291,
        "parameters": 7_241_732_096,
        "missing": [],
        "unexpected": [],
        "wrong_shape": [],
        "not_finite": [],
        "empty": [],
        "trained_share": 0.9999,
        "changed_share": 0.423,
        "rounding": "nearest",
    }
    return WeightFacts.model_validate(plain | changes)


def kept_facts(value: float = 0.99, **changes: Any) -> KeptFacts:
    """What these weights keep of the training."""
    share = {
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "n": 64,
        "method": "percentile bootstrap over prompts",
    }
    plain = {
        "source_sha256": digest("model 3"),
        "sha256": "5" * 64,
        "published": {"row-1": -100.4, "row-2": -50.1},
        "kept": share,
        "noise": 0.25,
    }
    return KeptFacts.model_validate(plain | changes)


PROMPT = PromptFacts(
    template="tulu_v2",
    trained_with="tulu_v2",
    replaced=False,
    text=(
        "<|user|>\nHi! I'm looking for a cake recipe.\n<|assistant|>\nWhat kind of cake?</s>\n"
        "<|user|>\nChocolate cake.\n<|assistant|>\n"
    ),
    bos="<s>",
    tokenizer_adds_bos=True,
    ends_with_eos=False,
    system="supported",
    stop=["</s>"],
)


def seed_facts(**changes: Any) -> CardFacts:
    """Facts of a run of the seed's recipe, with other fields where given."""
    given: dict[str, Any] = {"recipe": recipe(), "iterations": iterations(), "evaluations": evaluations()}
    given |= {key: changes.pop(key) for key in list(changes) if key in given}
    facts = collect_facts(
        given["recipe"],
        given["iterations"],
        given["evaluations"],
        weights=weights(),
        kept=kept_facts(),
        pictures=["pictures/curves.png"],
        lookup=lambda *_: CardLicense("apache-2.0"),
    )
    changes = {"prompt": PROMPT, "architecture": Architecture(name="MistralForCausalLM", context=32_768)} | changes
    return facts.model_copy(update=changes)
