"""What is too long: left out, cut, or refused, counted per label; and what a cut answer is."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from feedback_files import write_jsonl, write_recipe
from transformers import AutoTokenizer

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.templates import render_feedback
from kto_release.train.inputs import prepare
from kto_release.train.logps_store import Reference
from kto_release.train.tokenizing import tokenize

LONG = "the cat sat on the mat and the dog by the door " * 4
ROWS = [
    {"prompt": "What?", "completion": "Paris.", "label": True},
    {"prompt": "What?", "completion": LONG, "label": True},
    {"prompt": "Why?", "completion": LONG, "label": False},
    {"prompt": "Why?", "completion": f"No. {LONG}", "label": False},
    {"prompt": "Who?", "completion": "A dog.", "label": False},
    {"prompt": LONG, "completion": "Yes.", "label": True},
]


def prepared(folder, model, truncate):
    (folder / "data").mkdir()
    write_jsonl(folder / "data" / "one.jsonl", ROWS)
    changes = {"data.partitions": ["one"], "data.held_out": None, "train.max_length": 40, "train.truncate": truncate}
    chain = prepare(Run.open(load_recipe(write_recipe(folder, model, **changes)), folder / "runs"))
    return chain.tokens[0], chain.facts[0], chain.tokenizer


def test_a_cut_answer_has_no_end_of_turn(tiny_model, tmp_path):
    """It fills max_length to the last token with its own beginning, and nothing says that it ended; others do end.

    Fails if the end-of-turn token is put behind what was cut.
    """
    tokens, facts, tokenizer = prepared(tmp_path, tiny_model, "cut")
    eos = AutoTokenizer.from_pretrained(tiny_model).eos_token_id
    whole = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    rows = {int(row): number for number, row in enumerate(tokens.row_F)}
    for row, row_is_cut in {0: False, 1: True, 2: True, 3: True, 4: False}.items():
        completion = tokens.completion(rows[row]).tolist()
        length = len(tokens.prompt(int(tokens.prompt_F[rows[row]]))) + len(completion)
        assert (length == 40) == row_is_cut
        assert (eos in completion) == (completion[-1] == eos) == (not row_is_cut)
    cut = tokens.completion(rows[1]).tolist()
    assert cut == whole[: len(cut)]
    assert facts.truncated.model_dump() == {"desirable": 1, "undesirable": 2}
    assert facts.kept.model_dump() == {"desirable": 2, "undesirable": 3}
    assert {reason: counts.model_dump() for reason, counts in facts.dropped.items()} == {
        "prompt too long": {"desirable": 1, "undesirable": 0}
    }


def test_a_prompt_of_exactly_max_length_leaves_no_room(tiny_model, tmp_path):
    """The row is left out as one whose prompt is too long; with one token more it stays, cut to one token."""
    prompt = "Question: the cat sat on a mat?"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    [turn] = render_feedback(tokenizer, [([{"role": "user", "content": prompt}], "No.")])
    length = len(turn.prompt_ids)
    rows = [{"prompt": text, "completion": "No.", "label": True} for text in ("A", "D", prompt)]
    for most, kept, gone in ((length, 2, ["prompt too long"]), (length + 1, 3, [])):
        folder = tmp_path / str(most)
        (folder / "data").mkdir(parents=True)
        write_jsonl(folder / "data" / "one.jsonl", rows)
        changes = {"data.partitions": ["one"], "data.held_out": None, "train.max_length": most, "train.truncate": "cut"}
        found = prepare(Run.open(load_recipe(write_recipe(folder, tiny_model, **changes)), folder / "runs"))
        assert found.facts[0].kept.desirable == kept
        assert list(found.facts[0].dropped) == gone
    assert found.tokens[0].completion(2).tolist() == turn.completion_ids[:1]


def test_a_partner_is_cut_where_the_prompt_before_it_is_longer(tiny_model, tmp_path):
    """Another prompt's answer keeps its beginning up to max_length, at least one token, and all of it where it fits."""
    tokens, _, _ = prepared(tmp_path, tiny_model, "cut")
    rows = {int(row): number for number, row in enumerate(tokens.row_F)}
    long, short = rows[3], rows[4]
    prompt = int(tokens.prompt_F[short])
    length = len(tokens.prompt(prompt))
    for max_length, room in ((length + 9, 9), (length + 1, 1), (length, 1)):
        assert tokens.partner(prompt, long, max_length).tolist() == tokens.completion(long)[:room].tolist()
    whole = tokens.completion(short).tolist()
    assert tokens.partner(prompt, short, length + len(whole)).tolist() == whole


def test_what_is_too_long_is_left_out_and_counted_per_label(tiny_model, tmp_path):
    """The default: nothing is cut, and the reasons say how many of which kind are gone."""
    tokens, facts, _ = prepared(tmp_path, tiny_model, "drop")
    assert tokens.row_F.tolist() == [0, 4]
    assert facts.truncated.model_dump() == {"desirable": 0, "undesirable": 0}
    assert {reason: counts.model_dump() for reason, counts in facts.dropped.items()} == {
        "prompt too long": {"desirable": 1, "undesirable": 0},
        "too long": {"desirable": 1, "undesirable": 2},
    }
    assert facts.longest == max(len(tokens.prompt(n)) + len(tokens.completion(n)) for n in range(2))


@pytest.mark.parametrize("share", ["5", "25", "50", "75", "95"])
def test_lengths_are_those_of_prompt_and_answer(tiny_model, tmp_path, share):
    """So many percent of the feedback have at most the length that the report shows."""
    tokens, facts, _ = prepared(tmp_path, tiny_model, "cut")
    lengths = [len(tokens.prompt(int(p))) + len(tokens.completion(n)) for n, p in enumerate(tokens.prompt_F)]
    shorter = sum(length <= facts.lengths[share] for length in lengths)
    assert shorter / len(lengths) >= int(share) / 100
    assert facts.lengths[share] in lengths


def test_processes_that_do_not_see_each_other_leave_one_whole_folder(tmp_path, tiny_model):
    """Four prepare one run at once, as ranks on machines whose network disk shows new files late: all get the same."""
    recipe = load_recipe(write_recipe(tmp_path, tiny_model))
    inputs = prepare(Run.open(recipe, tmp_path / "runs"))
    together = Barrier(4)

    def one(_):
        together.wait()
        place = tmp_path / "shared" / "tokens"
        return tokenize(place, inputs.partitions[0], recipe.data, recipe.train, inputs.tokenizer, "key")

    with ThreadPoolExecutor(4) as pool:
        found = [tokens.facts.sha256 for tokens in pool.map(one, range(4))]
    assert found == [inputs.tokens[0].facts.sha256] * 4
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["tokens"]


def test_a_pair_without_a_reference_is_named():
    """Between the stored keys, and above all of them."""
    reference = Reference(np.array([1, 5]), np.array([-1.0, -2.0]), 3)
    assert reference.of(np.array([1]), np.array([2])).tolist() == [-2.0]
    for key in (2, 9):
        with pytest.raises(KeyError, match="has no reference"):
            reference.of(np.array([0]), np.array([key]))
