"""The card says what the records say, in the form that the Hub wants, whatever strings stand in them."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token
from seed_records import (
    BASE,
    BASE_REVISION,
    DATA,
    PROMPT,
    evaluations,
    iterations,
    plain_evaluation,
    plain_iteration,
    recipe,
    seed_facts,
    thumbs_probe,
    weights,
)

from kto_release.errors import ReleaseError
from kto_release.recipe import Recipe
from kto_release.records import EvalRecord, IterationRecord
from kto_release.release.card import metadata, metadata_problems, render_card, write_card
from kto_release.release.facts import Architecture, CardFacts


def front(card: str) -> dict[str, Any]:
    """The metadata of a card, read as the Hub reads it."""
    block = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert block is not None
    plain: dict[str, Any] = yaml.safe_load(block.group(1))
    return plain


def test_metadata_equals_the_seeds_card_in_every_key_it_has() -> None:
    """For the seed's recipe and records each key of the seed's card has the seed's value."""
    plain = front(render_card(seed_facts()))
    assert {key: plain[key] for key in ("language", "license", "tags", "datasets", "metrics")} == {
        "language": ["en"],
        "license": "apache-2.0",
        "tags": ["human feedback", "rlhf", "preferences", "alignment", "HALO", "halos", "dpo", "rl"],
        "datasets": ["snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset"],
        "metrics": ["accuracy"],
    }


def test_metadata_has_what_the_hub_asks_for() -> None:
    """Beside the seed's keys: task, library, base model with its relation, results with judge, n and interval."""
    plain = front(render_card(seed_facts()))
    assert {key: plain[key] for key in ("pipeline_tag", "library_name", "base_model", "base_model_relation")} == {
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "base_model": BASE,
        "base_model_relation": "finetune",
    }
    (index,) = plain["model-index"]
    assert index["name"] == "Contextual_KTO_Mistral_PairRM"
    accuracy, alpaca = index["results"]
    assert accuracy["dataset"] == {"name": "held-out feedback", "type": DATA}
    assert accuracy["metrics"] == [
        {
            "type": "accuracy",
            "value": 64.0,
            "name": "preference accuracy (n = 994, 95% interval 60.1 to 68.2)",
        }
    ]
    assert alpaca["dataset"] == {"name": "AlpacaEval 2.0", "type": "tatsu-lab/alpaca_eval", "revision": "2" * 40}
    judged = "over gpt4_1106_preview, judged by gpt-4.1-2025-04-14"
    assert alpaca["metrics"] == [
        {
            "type": "win_rate",
            "value": 29.41,
            "name": f"win rate {judged} (n = 805, 95% interval 26.8 to 32.2)",
        },
        {
            "type": "length_controlled_winrate",
            "value": 26.62,
            "name": f"length-controlled win rate {judged} (n = 805, 95% interval 23.3 to 30.0)",
        },
    ]


def test_the_hubs_own_client_reads_the_card() -> None:
    """huggingface_hub parses the card, its results included, and writes the same metadata again."""
    text = render_card(seed_facts())
    card = ModelCard(text)
    assert [result.metric_value for result in card.data.eval_results] == [64.0, 29.41, 26.62]
    assert card.data.to_dict() == front(text)


SEED_SAYS = [
    "model and tokenizer checkpoints",
    f"family [{BASE}](https://huggingface.co/{BASE})",
    "optimized with the loss [KTO](",
    f"aligned using [{DATA}](https://huggingface.co/datasets/{DATA})",
    "via 3 iterations of KTO on one epoch of each training partition,",
    "each previous iteration's model serving as the reference for the subsequent",
    "**2024-03-06**: #2 on the (verified) AlpacaEval 2.0 leaderboard at that time",
    "[AlpacaEval 2.0](https://tatsu-lab.github.io/alpaca_eval/), win rate (not length-controlled) **33.23**",
    "The format is that of TuluV2",
    "`<|user|>` stands for the human's role, `<|assistant|>` for the LLM's.",
    "The human should speak first.",
    "<|user|>\nHi! I'm looking for a cake recipe.\n<|assistant|>\nWhat kind of cake?",
    "<|user|>\nChocolate cake.\n<|assistant|>\n\n```",
    "A line break follows `<|assistant|>`; it belongs to the prompt.",
    "a beginning-of-sequence (BOS) token",
    "It is automatically added at tokenization time and does not have to be added by you.",
    "No end-of-sequence (EOS) token is added to the prompt.",
    "`apply_chat_template`",
    "https://github.com/ContextualAI/HALOs",
    "https://contextual.ai/better-cheaper-faster-llm-alignment-with-kto/",
    "https://arxiv.org/abs/2402.01306",
    "@techreport{ethayarajh2023halos,",
]


@pytest.mark.parametrize("words", SEED_SAYS)
def test_the_body_says_what_the_seeds_card_says(words: str) -> None:
    """Every statement of the seed's card has its place on ours."""
    assert words in render_card(seed_facts())


def test_what_was_stated_stands_apart_from_what_was_measured() -> None:
    """The seed's 33.23 stands once, under its own heading with its judge, and in no table and no metadata."""
    card = render_card(seed_facts())
    assert card.count("33.23") == 1
    section = card.split("## Stated results")[1].split("\n## ")[0]
    assert "None of it was measured by this run" in section
    assert "judged by gpt-4-1106-preview" in section


SHOWN = [
    # Where a number stands in the last iteration's record, what it becomes there, and what the card then says.
    (("partition", "kept", "desirable"), 12_345, "12,345 + 18,003"),
    (("partition", "kept", "undesirable"), 12_346, "19,003 + 12,346"),
    (("partition", "dropped", "longer than max_length", "desirable"), 1, "344 (longer than max_length)"),
    (("partition", "prompts"), 12_347, "12,347 prompts"),
    (("partition", "tokens"), 12_348, "12,348 tokens"),
    (("partition", "duplicates"), 12_349, "12349 duplicates"),
    (("partition", "overlaps", "train_iteration_9"), 12_350, "12350 prompts shared with train_iteration_9"),
    (("training", "steps"), 12_351, "| 12,351 |"),
    (("training", "batch_size"), 48, "| feedback per optimizer step | 32, 48 |"),
    (("training", "beta"), 0.23, "| β | 0.1, 0.23 |"),
    (("training", "learning_rate"), 7e-7, "| peak learning rate | 5e-07, 7e-07 |"),
    (("training", "desirable_weight"), 1.2345, "| weight of desirable feedback | 1, 1.234 |"),
    (("training", "undesirable_weight"), 1.5, "| weight of undesirable feedback | 1, 1.5 |"),
    (("training", "max_length"), 1_024, "| most tokens of prompt and completion | 2,048, 1,024 |"),
    (("training", "seconds"), 36_000.0, "13.00 hours"),
    (("probe", "kl_initial"), 77.77, "| 77.77 |"),
    (("probe", "mean_length"), 888.8, "| 888.8 |"),
    (("probe", "preference_accuracy", "value"), 0.6789, "67.9 (60.1 to 68.2)"),
    (("probe", "preference_accuracy", "low"), 0.1234, "64.0 (12.3 to 68.2)"),
    (("probe", "preference_accuracy", "high"), 0.9876, "64.0 (60.1 to 98.8)"),
    (("environment", "hardware"), "2 x TPU", "8 x NVIDIA H100 80GB, then 2 x TPU"),
]


def changed(plain: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    plain = copy.deepcopy(plain)
    node = plain
    for key in path[:-1]:
        node = node[key]
    assert path[-1] in node
    node[path[-1]] = value
    return plain


@pytest.mark.parametrize(("path", "value", "shown"), SHOWN)
def test_the_card_follows_the_record_of_an_iteration(path: tuple[str, ...], value: object, shown: str) -> None:
    """A number that changes in a record changes on the card, and was not there before."""
    records = [
        *iterations(2),
        IterationRecord.model_validate(changed(plain_iteration(3), path, value)),
    ]
    before, after = render_card(seed_facts()), render_card(seed_facts(iterations=records))
    assert shown not in before
    assert shown in after


EVALUATED = [
    (("intervals", "win_rate", "value"), 41.5, "41.5 (26.8 to 32.2)"),
    (("intervals", "win_rate", "low"), 11.1, "29.4 (11.1 to 32.2)"),
    (("intervals", "win_rate", "high"), 66.6, "29.4 (26.8 to 66.6)"),
    (("intervals", "length_controlled_winrate", "value"), 44.4, "44.4 (23.3 to 30.0)"),
    (("length_controlled_winrate",), None, "29.4 (26.8 to 32.2) | not measured |"),
    (("n_total",), 798, "| 798 |"),
    (("n_failed",), 6, "| 6 |"),
    (("avg_length",), 1_234, "| 1,234 |"),
    (("position_bias",), 0.21, "preference for the first place 0.21"),
    (("self_consistency",), 0.93, "are swapped 93%"),
    (("answer_mass", "mean"), 0.77, "answer letters 0.77"),
    (("variance", "generation"), 0.37, "Variance of generation: 0.37"),
    (("screening", "much_longer"), 19, "19 much longer"),
    (("generation", "temperature"), 0.33, "temperature=0.33"),
    (("generation", "max_tokens"), 999, "max_new_tokens=999"),
    (("generation", "seed"), 1234, "seed 1234"),
]


@pytest.mark.parametrize(("path", "value", "shown"), EVALUATED)
def test_the_card_follows_the_record_of_an_evaluation(path: tuple[str, ...], value: object, shown: str) -> None:
    """A number that changes in results.json changes on the card."""
    records = [*evaluations(2), EvalRecord.model_validate(changed(plain_evaluation(3), path, value))]
    before, after = render_card(seed_facts()), render_card(seed_facts(evaluations=records))
    assert shown not in before
    assert shown in after


def test_metadata_follows_the_rate_that_alpaca_eval_names() -> None:
    """model-index states the record's win_rate itself."""
    records = [EvalRecord.model_validate(changed(plain_evaluation(3), ("win_rate",), 40.04))]
    plain = front(render_card(seed_facts(evaluations=records)))
    assert plain["model-index"][0]["results"][1]["metrics"][0]["value"] == 40.04


def test_what_no_record_holds_is_not_measured() -> None:
    """Without evaluation, probe and weights the card says so, and nothing is invented."""
    bare = plain_iteration(1)
    bare["probe"] = dict.fromkeys(bare["probe"]) | {"answers": 0}
    bare["partition"]["overlaps"] = {}
    facts = seed_facts(
        recipe=recipe("release.stated_results=[]", "release.metrics=[]", "data.partitions=1"),
        iterations=[IterationRecord.model_validate(bare)],
        evaluations=[],
        weights=None,
        prompt=None,
        architecture=Architecture(name=None, context=None),
    )
    card = render_card(facts)
    assert "Win rate of this model: not measured." in card
    assert "| 1 | train_iteration_1 | 19,001 + 18,001 | 1,151 | not measured | not measured | not measured |" in card
    assert "| weights | not measured |" in card
    assert "Not measured: no chat template was found beside the weights." in card
    assert "Carbon emissions: not measured." in card
    assert "model-index" not in front(card)
    assert "metrics" not in front(card)
    assert "%)" not in card.split("## How it was made")[0], "no rate without a record"
    assert "alpaca" not in card.lower()


def test_no_score_without_an_interval_reaches_the_metadata() -> None:
    """A rate without an interval is marked on the card, and absent from model-index."""
    plain = plain_evaluation(3)
    plain["intervals"] = {}
    card = render_card(seed_facts(evaluations=[EvalRecord.model_validate(plain)]))
    assert "| 29.4 (no interval) |" in card
    assert [result["dataset"]["name"] for result in front(card)["model-index"][0]["results"]] == ["held-out feedback"]


@pytest.mark.parametrize(
    "change",
    [{"reliable": False, "unreliable_because": ["a toy"]}, {"partial": True}, {"gamed": ["one answer for all"]}],
)
def test_a_result_that_can_not_be_relied_on_stays_out_of_the_metadata(change: dict[str, Any]) -> None:
    """An unreliable, partial or gamed result stands on the card with its reason, and not in model-index."""
    card = render_card(seed_facts(evaluations=[EvalRecord.model_validate(plain_evaluation(3) | change)]))
    assert [result["dataset"]["name"] for result in front(card)["model-index"][0]["results"]] == ["held-out feedback"]
    said = {
        "reliable": "‡ Not to be relied on: a toy.",
        "partial": "Not all instructions were scored",
        "gamed": "> 🛑 **The score of iteration-3 may be gamed: one answer for all.**",
    }
    assert said[next(iter(change))] in card


def test_an_unreliable_accuracy_stays_out_of_the_metadata() -> None:
    """Held-out accuracy whose interval does not hold stands on the card with a dagger, and not in model-index."""
    plain = changed(plain_iteration(3), ("probe", "preference_accuracy"), _few_pairs())
    card = render_card(seed_facts(iterations=[*iterations(2), IterationRecord.model_validate(plain)], evaluations=[]))
    assert "| 64.0 (20.0 to 90.0) † |" in card
    assert "model-index" not in front(card)


def test_thumbs_are_measured_by_their_auc() -> None:
    """Table, its explanation with what length alone gives, and metadata name it; a preference accuracy is nowhere."""
    plain = [changed(plain_iteration(number), ("probe",), thumbs_probe(number)) for number in (1, 2, 3)]
    records = [IterationRecord.model_validate(one) for one in plain]
    card = render_card(seed_facts(iterations=records, evaluations=[]))
    assert "| 71.0 (60.2 to 80.3) |" in card
    assert (
        "(83 and 67 answers); 68.7% among answers of like length, where the answer's length alone gives 55.4%." in card
    )
    assert front(card)["metrics"] == [*recipe().release.metrics, "roc_auc"]
    [metric] = front(card)["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "roc_auc", "value": 71.0, "name": "AUC (n = 150, 95% interval 60.2 to 80.3)"}
    assert "preference accuracy" not in card


def _few_pairs() -> dict[str, Any]:
    return {"value": 0.64, "low": 0.2, "high": 0.9, "n": 4, "method": "Wilson", "reliable": False}


def test_each_iteration_has_its_own_win_rate() -> None:
    """The table of iterations gives every model its own score, and none to one that was not evaluated."""
    card = render_card(seed_facts(evaluations=[evaluations()[1], evaluations()[3]]))
    lines = [line for line in card.split("## How it was made")[1].splitlines() if re.match(r"\| [123] ", line)]
    assert [line.rsplit(" | ", 1)[1] for line in lines] == [
        "21.2 (18.6 to 24.0) |",
        "not measured |",
        "29.4 (26.8 to 32.2) |",
    ]


@pytest.mark.parametrize("source", ["javascript:alert(1)", "data:text/html,x", "see the paper", "http:// x"])
def test_only_web_addresses_become_links(source: str) -> None:
    """The source of a stated result that is no http(s) address is shown, and is no link."""
    plain = recipe().dump()
    plain["release"]["stated_results"][0]["source"] = source
    card = render_card(seed_facts(recipe=Recipe.model_validate(plain)))
    section = card.split("## Stated results")[1].split("\n## ")[0]
    assert "link_open" not in [child.type for token in MarkdownIt().parse(section) for child in token.children or []]
    assert source.split(":", maxsplit=1)[0] in section


def test_scores_under_different_judges_never_share_a_table() -> None:
    """Two judges give two tables, each under its judge's name, and two columns in the table of iterations."""
    both = [EvalRecord.model_validate(plain_evaluation(3, judge)) for judge in ("judge-a", "judge-b")]
    card = render_card(seed_facts(evaluations=both))
    assert re.findall(r"^### (.*)$", card, re.MULTILINE) == [
        "Judged by judge-a, against gpt4_1106_preview",
        "Judged by judge-b, against gpt4_1106_preview",
    ]
    assert card.count("**iteration-3** (this model)") == 2
    header = next(line for line in card.splitlines() if line.startswith("| iteration |"))
    assert header.endswith(
        "| win rate over gpt4_1106_preview (%), judged by judge-a "
        "| win rate over gpt4_1106_preview (%), judged by judge-b |"
    )


def test_models_stand_in_the_order_of_the_iterations() -> None:
    """Other models first, and iteration 10 behind iteration 2, whatever order the files are read in."""
    plain = [plain_evaluation(3) for _ in range(3)]
    for one, name in zip(plain, ("iteration-10", "iteration-2", "some-baseline"), strict=True):
        one["model"]["name"] = name
    card = render_card(seed_facts(evaluations=[EvalRecord.model_validate(one) for one in plain]))
    assert re.findall(r"^\| (some-baseline|iteration-\d+) \|", card, re.MULTILINE) == [
        "some-baseline",
        "iteration-2",
        "iteration-10",
    ]


def test_answers_of_the_initial_model_are_called_that() -> None:
    """Whatever name its answers are signed with, a reference that is the initial model is named so."""
    for name in ("initial", BASE):
        plain = changed(plain_evaluation(3), ("reference",), name)
        card = render_card(seed_facts(evaluations=[EvalRecord.model_validate(plain)]))
        assert "win rate over the initial model (%), judged by" in card
        assert "compared with those of the initial model by" in card
        assert (
            "win rate over the initial model, judged by"
            in front(card)["model-index"][0]["results"][1]["metrics"][0]["name"]
        )


def test_several_sources_and_stop_tokens_are_told_apart() -> None:
    """Lists of names have spaces between them."""
    plain = changed(plain_iteration(1), ("partition", "source"), ["a.jsonl", "b.jsonl"])
    prompt = PROMPT.model_copy(update={"stop": ["</s>", "<|end|>"]})
    card = render_card(seed_facts(iterations=[IterationRecord.model_validate(plain)], prompt=prompt))
    assert "- aligned using a.jsonl, b.jsonl,\n" in card
    assert "of a.jsonl, b.jsonl (revision" in card
    assert "An answer ends with `</s>` or `<|end|>`." in card
    assert "via 1 iteration of KTO" in card


def test_a_template_that_writes_bos_itself_is_shown_with_it() -> None:
    """Where the tokenizer adds no BOS, the prompt is shown as it must be written, and the note says so."""
    prompt = PROMPT.model_copy(
        update={"text": "<|im_start|>user\nHi!", "bos": "<|im_start|>", "tokenizer_adds_bos": False}
    )
    card = render_card(seed_facts(prompt=prompt))
    assert "```\n<|im_start|>user\nHi!\n```" in card
    assert "it begins with the beginning-of-sequence (BOS) token, `<|im_start|>`: the template writes it" in card


def test_the_card_says_what_the_published_weights_keep() -> None:
    """How they were rounded, the share of the training with its interval and n, and the noise; or that nothing was."""
    nearest = (
        "Rounded to the nearest, they keep 99.0% (97.0 to 101.0) of what training moved the log-probabilities of 64 "
    )
    assert nearest + "recorded answers by; single answers are off by 0.25 nats (root mean square)." in render_card(
        seed_facts()
    )
    assert "Rounded stochastically, they keep 99.0%" in render_card(seed_facts(weights=weights(rounding="stochastic")))
    assert "What the rounding to bfloat16 keeps of the training was not measured." in render_card(seed_facts(kept=None))
    unrounded = render_card(seed_facts(weights=weights(dtype="float32", rounding="none"), kept=None))
    assert "of the published float32 values differ from the initial model's. Nothing was rounded." in unrounded


def test_a_dagger_is_explained_where_there_is_one() -> None:
    """An interval that does not hold its level is marked and explained; without one, the card has no such mark."""
    record = plain_evaluation(3)
    sure = seed_facts(
        iterations=[IterationRecord.model_validate(plain_iteration(3))], evaluations=[EvalRecord.model_validate(record)]
    )
    assert "†" not in render_card(sure)
    record["intervals"]["win_rate"]["reliable"] = False
    doubtful = render_card(sure.model_copy(update={"evaluations": [EvalRecord.model_validate(record)]}))
    assert "| 29.4 (26.8 to 32.2) † |" in doubtful
    assert "\n† The interval is known not to hold its level here" in doubtful


def test_emissions_that_somebody_measured_are_told_with_their_source() -> None:
    """kto-release measures none; those of the recipe stand on the card and in the metadata, as stated."""
    assert "Carbon emissions: not measured.\n" in render_card(seed_facts())
    emissions = {"grams": 12500.0, "source": "codecarbon 3.0"}
    card = render_card(seed_facts(recipe=recipe().model_copy(update={"release": _release(emissions=emissions)})))
    assert "Carbon emissions: 12500 g of CO₂ equivalents, as stated by its makers (codecarbon 3.0).\n" in card
    assert front(card)["co2_eq_emissions"] == {"emissions": 12500.0, "source": "codecarbon 3.0"}


def test_results_in_the_hubs_newer_form(tmp_path: Path) -> None:
    """.eval_results/ holds the rates of AlpacaEval that can be relied on, as the Hub's own client reads them."""
    from huggingface_hub import parse_eval_result_entries

    write_card(tmp_path, seed_facts())
    assert not (tmp_path / ".eval_results").exists()
    write_card(tmp_path, seed_facts(), results=True)
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / "alpaca_eval.yaml").read_text()))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("tatsu-lab/alpaca_eval", "win_rate", 29.41),
        ("tatsu-lab/alpaca_eval", "length_controlled_winrate", 26.62),
    ]
    assert [entry.notes for entry in entries] == [
        "win rate over gpt4_1106_preview, judged by gpt-4.1-2025-04-14 (n = 805, 95% interval 26.8 to 32.2)",
        "length-controlled win rate over gpt4_1106_preview, judged by gpt-4.1-2025-04-14"
        " (n = 805, 95% interval 23.3 to 30.0)",
    ]
    other = EvalRecord.model_validate(plain_evaluation(3) | {"is_alpaca_eval": False})
    write_card(tmp_path / "other", seed_facts(evaluations=[other]), results=True)
    assert not (tmp_path / "other" / ".eval_results").exists()


def test_an_unfinished_chain_is_called_out() -> None:
    """A release of iteration 2 of 3 says so before any number."""
    card = render_card(seed_facts(iterations=iterations(2)))
    assert "> 🛑 **This is iteration 2 of 3 of the recipe.**" in card
    assert "via 2 iterations of KTO" in card


def test_an_overridden_licence_is_called_out() -> None:
    """Conflict and reason stand on the card."""
    plain = plain_iteration(1)
    plain["partition"]["licenses"] = {DATA: "cc-by-nc-4.0"}
    facts = seed_facts(
        recipe=recipe("release.license_override='The owner agreed, in writing.'"),
        iterations=[IterationRecord.model_validate(plain)],
    )
    card = render_card(facts)
    assert "> 🛑 **The licence overrides what it is made of: The owner agreed, in writing.**" in card
    assert f"- conflict: data {DATA}: cc-by-nc-4.0 forbids commercial use, which apache-2.0 allows" in card


def test_a_replaced_template_is_called_out() -> None:
    """A card of a model that is published with another template than it was trained with says so."""
    replaced = PROMPT.model_copy(update={"template": "chatml", "replaced": True})
    assert "> 🛑 **The chat template was replaced: published is chatml, trained with was tulu_v2.**" in render_card(
        seed_facts(prompt=replaced)
    )


def test_the_base_models_revision_and_every_citation_are_there() -> None:
    """Lineage to the commit, and KTO, HALOs, base model, data, template and evaluation cited."""
    card = render_card(seed_facts())
    assert f"(revision `{BASE_REVISION}`)" in card
    keys = re.findall(r"^@\w+\{([^,]+),$", card, re.MULTILINE)
    assert keys == [
        "ethayarajh2024kto",
        "ethayarajh2023halos",
        "jiang2023mistral7b",
        "snorkel_mistral_pairrm",
        "jiang2023llmblender",
        "cui2023ultrafeedback",
        "ivison2023camels",
        "alpaca_eval",
        "dubois2024length",
    ]


NASTY = [
    "</script><img src=x onerror=alert(1)>",
    "a | b || c",
    "`` ` ``` code",
    "[text](javascript:alert(1))",
    "![](https://example.org/pixel.png)",
    "*em* **strong** _em_ __strong__ ~~gone~~",
    "# heading",
    "1. list",
    "- list",
    "--- ",
    "===",
    "> quote",
    "key: value # comment",
    "'single' \"double\" \\ back",
    "&lt;b&gt; &amp; &#60;",
    "{{ 7 * 7 }} {% raw %}",
    "!!python/object/apply:os.system [id]",
    "$x^2$ \\(y\\)",
    "\u202egnp.exe\u0000\u0007",
    "<!-- comment",
    "<https://example.org>",
    "[^1]: note",
    "~~~",
    "line\nbreak\n---\nlicense: mit",
    "```\n## owned\n```",
]


def tokens(card: str) -> list[str]:
    """The structure of a card's Markdown: its tokens without their text."""

    def walk(found: list[Token]) -> Iterator[str]:
        for token in found:
            if token.type != "inline":
                yield token.type
            # A run of text may be cut into several tokens: one stands for all.
            last = ""
            for child in token.children or []:
                kind = "text" if child.type == "text_special" else child.type
                if kind != "text" or last != "text":
                    yield kind
                last = kind

    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return [*walk(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body))]


def with_string(text: str) -> CardFacts:
    """Facts with `text` in every place where people or models can put one."""
    iteration = plain_iteration(3)
    iteration["partition"] |= {
        "name": text,
        "source": [text, DATA],
        "revision": text,
        "dropped": {text: {"desirable": 1, "undesirable": 1}},
        "overlaps": {text: 4},
        "licenses": {DATA: text},
    }
    iteration["environment"] = iteration["environment"] | {"hardware": text}
    iteration["model"]["name"] = text
    iteration["training"]["precision"] = text
    evaluation = plain_evaluation(3) | {
        "score": text,
        "instructions": text,
        "reference": text,
        "unreliable_because": [text],
        "gamed": [text],
        "screening": {text: 3},
        "is_alpaca_eval": False,
        "reliable": False,
        "estimated": {text: 1.0},
    }
    evaluation["model"]["name"] = text
    evaluation["judge"] |= {"name": text, "model": text}
    evaluation["generation"] |= {"engine": text, "engine_version": text, "dtype": text}
    plain = recipe().dump()
    plain["release"] |= {
        "title": text,
        "summary": text,
        "limits": text,
        "repo_id": text,
        "tags": [text],
        "metrics": [text],
        "license_override": text,
    }
    plain["release"]["emissions"] = {"grams": 5.0, "source": text}
    plain["release"]["stated_results"][0] |= {
        "benchmark": text,
        "metric": text,
        "judge": text,
        "note": text,
        "date": text,
        "source": f"https://example.org/{text}",
    }
    base = iterations(1)[0]
    facts = seed_facts(
        recipe=Recipe.model_validate(plain),
        iterations=[base, IterationRecord.model_validate(iteration)],
        evaluations=[EvalRecord.model_validate(evaluation)],
        prompt=PROMPT.model_copy(
            update={
                "template": text,
                "trained_with": text,
                "replaced": True,
                "text": text,
                "bos": text,
                "stop": [text],
            }
        ),
        architecture=Architecture(name=text, context=None),
    )
    changes = {"name": text, "hub_id": None, "revision": None}
    return facts.model_copy(update={"base": facts.base.model_copy(update=changes), "datasets": [DATA]})


@pytest.mark.parametrize("text", NASTY)
def test_no_string_changes_the_cards_structure(text: str) -> None:
    """Whatever stands in a name, note or reason: the same headings, tables, links and code, no markup of its own."""
    harmless, nasty = with_string("harmless"), with_string(text)
    plain_card, card = render_card(harmless), render_card(nasty)
    # The address of a stated result's source is a link either way, and free text may hold several paragraphs.
    assert tokens(card) == tokens(plain_card)
    before, after = front(plain_card), front(card)
    assert list(after) == list(before)
    assert after["license"] == "apache-2.0"
    assert [type(value) for value in after.values()] == [type(value) for value in before.values()]
    assert "{{" not in tokens(card)


def test_the_text_of_a_nasty_string_is_still_read() -> None:
    """Escaping loses nothing: the rendered page shows the characters themselves."""
    text = "a*b_c [d](e) <f> | `g` # ~h~ &amp; \\i $j$"
    card = render_card(seed_facts(recipe=recipe().model_copy(update={"release": _release(summary=text)})))
    body = card.split("\n---\n", 1)[1]
    inline = [token for token in MarkdownIt().parse(body) if token.type == "inline"]
    assert "".join(child.content for child in inline[1].children or []) == text


def _release(**changes: Any) -> Any:
    return recipe().release.model_copy(update=changes)


def test_free_text_keeps_its_paragraphs() -> None:
    """A summary of two paragraphs stays two."""
    card = render_card(
        seed_facts(recipe=recipe().model_copy(update={"release": _release(summary="One\nline.\n\nTwo.")}))
    )
    assert "\n\nOne line.\n\nTwo.\n\n" in card


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"license": "apache"}, "license: 'apache' is no licence id of the Hub"),
        ({"license": "license"}, "license: 'license' is a placeholder"),
        ({"language": ["english!"]}, "language: 'english!' is no ISO 639 code"),
        ({"datasets": ["a/b/c"]}, "datasets: 'a/b/c' is no Hub id"),
        ({"datasets": [None]}, "datasets: [None] is a placeholder"),
        ({"base_model": "./local/model"}, "base_model: './local/model' is no Hub id"),
        ({"base_model": "None"}, "base_model: 'None' is a placeholder"),
        ({"tags": [""]}, "tags: [''] is a placeholder"),
    ],
)
def test_metadata_that_the_hub_would_refuse_is_found_offline(changes: dict[str, Any], problem: str) -> None:
    """Bad ids and placeholders are named before anything is sent."""
    plain = metadata(seed_facts()) | changes
    assert problem in metadata_problems(plain)
    assert metadata_problems(metadata(seed_facts())) == []


def test_a_card_with_bad_metadata_is_refused() -> None:
    """All problems at once, and what to mend."""
    facts = seed_facts(language=["English"], datasets=["a/b/c"])
    with pytest.raises(ReleaseError) as caught:
        render_card(facts)
    assert str(caught.value) == (
        "the card's metadata is not valid:\n"
        "  - language: 'English' is no ISO 639 code\n"
        "  - datasets: 'a/b/c' is no Hub id\n"
        "  to do: mend these keys under `release` in the recipe"
    )


def test_the_card_can_be_made_again_from_what_is_published(tmp_path: Path) -> None:
    """records/card.json and the other records together give the same README.md to the byte."""
    facts = seed_facts()
    write_card(tmp_path, facts)
    rest = json.loads((tmp_path / "records" / "card.json").read_bytes())
    again = CardFacts.model_validate(
        rest | {"iterations": facts.iterations, "evaluations": facts.evaluations, "weights": facts.weights}
    )
    assert render_card(again) == (tmp_path / "README.md").read_text(encoding="utf-8")
