"""The official leaderboard stands around the official judge's results, and around no others."""

import pytest
from evaluations import JUDGE, write_evaluation

from kto_release.evaluate.report import summary
from kto_release.evaluate.scoring.leaderboard import leaderboard, neighbours
from kto_release.files import read_record
from kto_release.records import EvalRecord


@pytest.fixture
def record(tmp_path_factory: pytest.TempPathFactory) -> EvalRecord:
    """A complete result of the official judge at 29.7%, where Contextual-KTO-Mistral-PairRM stands."""
    folder = write_evaluation(tmp_path_factory.mktemp("run") / "a", "some-model", [1.5] * 10)
    plain = read_record(folder / "results.json", EvalRecord)
    assert plain is not None
    judge = JUDGE.model_copy(update={"official": True})
    update = {"judge": judge, "is_alpaca_eval": True, "length_controlled_winrate": 29.7, "win_rate": 33.2}
    return plain.model_copy(update=update)


def test_the_leaderboard_is_the_packages() -> None:
    """223 models, the seed's among them with its published numbers."""
    models = leaderboard()
    assert len(models) == 223
    seed = models["Contextual-KTO-Mistral-PairRM"]
    assert (round(seed.win_rate, 2), round(seed.length_controlled_winrate, 2), seed.n_total) == (33.23, 29.71, 805)
    assert sum(model.n_total < 805 for model in models.values()) == 13
    assert [model.rank for model in models.values()] == list(range(1, 224))


def test_a_result_stands_between_its_neighbours(record: EvalRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """Three above and three below, in order, and the result in their middle."""
    rates = [model.length_controlled_winrate for model in neighbours(record)]
    assert len(rates) == 6
    assert rates == sorted(rates, reverse=True)
    assert rates[2] >= 29.7 > rates[3]
    summary.show(record)
    lines = capsys.readouterr().out.splitlines()
    here = next(number for number, line in enumerate(lines) if "this result" in line)
    assert "Contextual-KTO-Mistral-PairRM" in lines[here - 1]


def test_the_ends_of_the_leaderboard_have_neighbours_on_one_side(record: EvalRecord) -> None:
    """Above the best there is none, below the worst neither."""
    best = neighbours(record.model_copy(update={"length_controlled_winrate": 99.0}))
    worst = neighbours(record.model_copy(update={"length_controlled_winrate": 0.0}))
    assert [model.rank for model in best] == [1, 2, 3]
    assert [model.rank for model in worst] == [221, 222, 223]


@pytest.mark.parametrize(
    "changes",
    [
        {"judge": JUDGE},
        {"is_alpaca_eval": False},
        {"partial": True},
        {"length_controlled_winrate": None},
    ],
)
def test_what_can_not_be_compared_does_not_stand_there(record: EvalRecord, changes: dict[str, object]) -> None:
    """Another judge, other instructions, missing ones, or no length control: no leaderboard."""
    assert neighbours(record.model_copy(update=changes)) == []
