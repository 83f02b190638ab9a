"""The learning rate over one iteration: transformers' schedules, with a warm-up whose first step counts."""

from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def make_schedule(name: str, optimizer: Optimizer, warmup: int, steps: int) -> LambdaLR:
    """Transformers' schedule `name` over `steps` optimizer steps, `warmup` of which rise: 1/warmup, 2/warmup, … 1.

    Transformers' own warm-up starts at 0, so the first global batch would be computed and move nothing.
    """
    from transformers import get_scheduler

    own = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    return LambdaLR(optimizer, [partial(_rate, own.lr_lambdas[0], warmup)] * len(optimizer.param_groups))


def _rate(own: Callable[[int], float], warmup: int, step: int) -> float:
    return (step + 1) / warmup if step < warmup else own(step)
