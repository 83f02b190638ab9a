"""The learning rate of every step, and when checkpoints are made."""

import pytest
import torch
from feedback_files import write_recipe

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train.device import process_state
from kto_release.train.fit import fit
from kto_release.train.inputs import prepare
from kto_release.train.iteration import make_iteration
from kto_release.train.schedule import make_schedule


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant_with_warmup", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("constant", [1.0] * 6),
    ],
)
def test_every_step_moves(name, expected):
    """Six steps, two of which rise: 1/2 and 2/2, then as the schedule says: (6 - step) / 4 for the linear one."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = make_schedule(name, optimizer, 0 if name == "constant" else 2, 6)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"] / 2.0)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, ["checkpoint-1", "checkpoint-2"]), (1e9, []), (None, [])])
def test_checkpoints_come_by_time(tmp_path, tiny_model, minutes, expected):
    """After each step but the last where hardly any time may pass between them, and none where an age may."""
    changes = {"train.checkpoint_every": None, "train.checkpoint_minutes": minutes}
    run = Run.open(load_recipe(write_recipe(tmp_path, tiny_model, **changes)), tmp_path / "runs")
    run.create()
    process_state()
    inputs = prepare(run)
    fit(make_iteration(inputs, 1, inputs.initial, "fp32"))
    assert sorted(path.name for path in run.iteration(1).glob("checkpoints/checkpoint-*")) == expected
