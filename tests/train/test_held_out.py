"""What held-out thumbs say of a model: the AUC by its definition, its interval, and where it is shown."""

import numpy as np
import pytest
from feedback_files import sentence, write_jsonl, write_recipe
from scipy.stats import norm

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train
from kto_release.train.chain import stopped_by
from kto_release.train.held_out import auc, auc_interval, separation
from kto_release.train.inputs import prepare

KINDS = 32


def thumbs(count, *, users=4):
    """As many desirable as undesirable answers, each to a prompt of its own, by users in turn; the last has none."""
    for number in range(2 * count):
        row = {
            "prompt": f"Question {number}?",
            "completion": sentence(number, 2 + number % 7),
            "label": number % 2 == 0,
        }
        yield row if number == 2 * count - 1 else {**row, "origin": {"user": f"u{number // 2 % users}"}}


def recipe_of(folder, model, held, **changes):
    """One iteration on thumbs, with `held` to measure it on."""
    (folder / "data").mkdir(parents=True)
    write_jsonl(folder / "data" / "one.jsonl", [{**row, "prompt": f"A {row['prompt']}"} for row in thumbs(6)])
    write_jsonl(folder / "data" / "held.jsonl", held)
    return load_recipe(write_recipe(folder, model, **{"data.partitions": ["one"], "train.probe_prompts": 0, **changes}))


@pytest.fixture(scope="module")
def held(tmp_path_factory, tiny_model):
    """Held-out tokens of 32 answers of either label."""
    folder = tmp_path_factory.mktemp("thumbs") / "run"
    return prepare(Run.open(recipe_of(folder, tiny_model, list(thumbs(KINDS))), folder / "runs")).held_out


def test_auc_is_the_share_of_pairs_in_order_and_a_tie_is_half_of_one():
    """Desirable 3, 1, 2 against undesirable 2, 0: of six pairs four are right, one is wrong, one is a tie."""
    values, desirable = np.array([3.0, 1.0, 2.0, 2.0, 0.0]), np.array([True, True, True, False, False])
    assert auc(values, desirable) == 4.5 / 6
    assert auc(-values, desirable) == pytest.approx(1.5 / 6)


@pytest.mark.parametrize(
    ("users", "answers", "gain", "of_user", "leans"),
    [(100, 1, 0.0, 0.0, False), (100, 1, 2.5, 0.0, False), (20, 6, 0.5, 1.0, True), (12, 10, 1.0, 1.0, True)],
)
def test_the_interval_holds_its_level(users, answers, gain, of_user, leans):
    """Of 400 intervals at least 92% hold the true AUC, with users who differ in their answers and in their thumbs.

    Two standard errors below 95%. Fails for the last two with a variance that takes answers as independent (70%).
    """
    random = np.random.default_rng(0)
    true, hit, made = norm.cdf(gain / np.sqrt(2 * (1 + of_user**2))), 0, 0
    user = np.repeat(np.arange(users), answers)
    while made < 400:
        share = random.beta(0.5, 0.5, users) if leans else np.full(users, 0.5)
        desirable = random.random(len(user)) < share[user]
        if min(desirable.sum(), (~desirable).sum()) < 30:
            continue
        values = random.normal(size=len(user)) + of_user * random.normal(size=users)[user] + gain * desirable
        found = auc_interval(values, desirable, user, by_user=True)
        hit += found.low <= true <= found.high
        made += 1
    assert hit / made >= 0.92


def test_a_perfect_order_is_not_certain():
    """With 30 of a kind an AUC of 1 reaches down to about nine tenths, and no bound leaves [0, 1]."""
    desirable = np.arange(60) < 30
    found = auc_interval(desirable.astype(float), desirable, np.arange(60), by_user=False)
    assert (found.value, found.high, found.n) == (1.0, 1.0, 60)
    assert 0.88 < found.low < 0.95
    worst = auc_interval(-desirable.astype(float), desirable, np.arange(60), by_user=False)
    assert (worst.value, worst.low, worst.high) == (0.0, 0.0, pytest.approx(1 - found.low))


def test_users_are_what_answers_cluster_by(held):
    """Four users and one row without: five clusters, named in the method."""
    assert sorted(set(held.user_F.tolist())) == [-1, 0, 1, 2, 3]
    found = separation(held, np.arange(len(held), dtype=float))
    assert found.auc.method == "Newcombe's method 5, clustered by user (5)"
    assert (found.desirable, found.undesirable, found.auc.n) == (KINDS, KINDS, 2 * KINDS)


def test_what_length_explains_is_gone_among_answers_of_like_length(held):
    """A reward that is the answer's length has length's own AUC, and nothing within one length."""
    lengths = np.array([len(held.completion(row)) for row in range(len(held))], dtype=float)
    leaning = lengths + 100 * held.desirable_F
    assert separation(held, lengths).auc.value == separation(held, lengths).length_auc
    assert separation(held, leaning).within_lengths == separation(held, leaning).auc.value == 1.0
    coarse = np.searchsorted(np.quantile(lengths, [0.2, 0.4, 0.6, 0.8]), lengths, "right").astype(float)
    assert separation(held, coarse).within_lengths == 0.5


@pytest.mark.slow
def test_thumbs_are_measured_by_a_run(tmp_path, tiny_model, capsys):
    """Record, screen and stopping rule have the AUC; there are no pairs, and the preference accuracy is not measured."""
    rule = {"train.stop_if": [{"metric": "auc", "below": 1.0}], "train.learning_rate": 1e-3}
    run = Run.open(recipe_of(tmp_path / "run", tiny_model, list(thumbs(KINDS)), **rule), tmp_path / "runs")
    train(run)
    [record] = run.iteration_records()
    assert record.probe.preference_accuracy is None
    assert record.probe.held_out == ("AUC", record.probe.auc, "answers")
    assert 0 < record.probe.auc.low < record.probe.auc.value < record.probe.auc.high < 1
    assert f"AUC of the last one: {record.probe.auc.value:.3f}" in capsys.readouterr().out
    assert "auc" in stopped_by(run.recipe.train.stop_if, record.probe)


@pytest.mark.slow
def test_fewer_than_thirty_of_a_kind_are_not_measured(tmp_path, tiny_model, capsys):
    """Twenty-nine: the counts are recorded, and no number is made of them."""
    run = Run.open(recipe_of(tmp_path / "run", tiny_model, list(thumbs(29))), tmp_path / "runs")
    train(run)
    found = run.iteration_records()[0].probe
    assert found.separation.model_dump() == {
        "auc": None, "length_auc": None, "within_lengths": None, "desirable": 29, "undesirable": 29,
    }  # fmt: skip
    assert found.held_out is None
    assert "not measured" in capsys.readouterr().out
