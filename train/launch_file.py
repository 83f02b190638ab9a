"""What an accelerate configuration says about devices: how many, and whether they share one model."""

from pathlib import Path
from typing import NamedTuple

import yaml

from kto_release.errors import RecipeError


class Devices(NamedTuple):
    """What an accelerate configuration says about devices."""

    processes: int
    shards: int
    """Over how many devices weights, gradients and optimizer state are split; 1: each holds all."""
    name: str
    per_machine: int = 1
    """Processes of one machine."""
    main_only: bool = False
    """Whether one process of a machine loads the weights, and sends them to the others."""


def read_devices(config: Path | None) -> Devices:
    """Number of devices and sharding of an accelerate configuration; None is one device.

    Raises `RecipeError` where the file is none, or one of DeepSpeed.
    """
    if config is None:
        return Devices(1, 1, "one device")
    try:
        plain = yaml.safe_load(config.read_text(encoding="utf-8"))
        processes = int(plain.get("num_processes", 1))
    except (OSError, yaml.YAMLError, AttributeError, ValueError, TypeError) as error:
        raise RecipeError(
            f"no accelerate configuration: {str(config)!r} ({str(error).splitlines()[0]})",
            expected="a file as `accelerate config` writes it; recipes/accelerate/ has some",
        ) from None
    kind = str(plain.get("distributed_type", "NO"))
    if kind == "DEEPSPEED":
        refuse_deepspeed()
    machines = max(1, int(plain.get("num_machines", 1) or 1))
    main_only = bool((plain.get("fsdp_config") or {}).get("fsdp_cpu_ram_efficient_loading", False))
    shards = processes if kind == "FSDP" else 1
    return Devices(processes, shards, f"{processes} devices, {kind}", -(-processes // machines), main_only)


def refuse_deepspeed() -> None:
    """Raises `RecipeError`."""
    raise RecipeError(
        "DeepSpeed is not supported",
        expected="FSDP2, which splits weights, gradients and optimizer state in the same way",
        todo="use recipes/accelerate/fsdp2-8gpu.yaml",
    )
