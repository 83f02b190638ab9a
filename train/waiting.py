"""Waiting for work that one process does alone: hours, if need be, where a collective would time out after minutes.

Downloads, checks, tokenisation, the hand-over and checks of weights run on the main process, or on one after the other.
The others wait in a gloo group of their own, so the timeout of the training's collectives stays short, and tells a
process that hangs from one that works.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch

from kto_release.errors import RunError

LONGEST = timedelta(days=2)


@cache
def _group(world: Any) -> Any:
    """The group of waits beside a process group; every process makes it at its first wait."""
    del world
    return torch.distributed.new_group(backend="gloo", timeout=LONGEST)


def _patient() -> Any:
    return _group(torch.distributed.group.WORLD)


@contextmanager
def _others_may_stop() -> Iterator[None]:
    """A process that ends closes its connections, which ends the others' waits."""
    try:
        yield
    except RuntimeError as error:
        raise RunError("another process of this training stopped", todo="see its own message") from error


def wait(state: Any) -> None:
    """Wait until every process is here. Raises `RunError` where another one stops."""
    if state.num_processes > 1:
        group = _patient()
        with _others_may_stop():
            torch.distributed.barrier(group=group)


@contextmanager
def together(state: Any) -> Iterator[None]:
    """Work that takes each process another time, or only one of them any: they go on together."""
    yield
    wait(state)


@contextmanager
def in_turn(state: Any) -> Iterator[None]:
    """Work that leaves files which who comes later finds: the main process, then one of each machine, then the rest."""
    turn = 0 if state.is_main_process else 1 if state.is_local_main_process else 2
    for _ in range(turn):
        wait(state)
    with together(state):
        yield
    for _ in range(turn, 2):
        wait(state)


def from_main(state: Any, value: Any) -> Any:
    """The main process's `value` on every process; it may be long in coming."""
    if state.num_processes == 1:
        return value
    held, group = [value], _patient()
    with _others_may_stop():
        torch.distributed.broadcast_object_list(held, src=0, group=group, device=torch.device("cpu"))
    return held[0]


def from_all(state: Any, value: Any) -> list[Any]:
    """Every process's `value` on every process, in the order of the ranks."""
    if state.num_processes == 1:
        return [value]
    values: list[Any] = [None] * state.num_processes
    group = _patient()
    with _others_may_stop():
        torch.distributed.all_gather_object(values, value, group=group)
    return values
