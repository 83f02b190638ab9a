"""Policy and reference compute the same function: nothing of the base model behaves differently while training."""

import torch
from torch import Tensor, nn

FP32_ANSWER, FP32_NAT = 1e-3, 2e-5
"""Nats per answer, and per nat of its log-probability, by which two orders of fp32 arithmetic may differ: four times
what AVX2 and AVX-512 gave for answers of -242 to -505 nats."""
BF16_ANSWER, BF16_NAT = 0.5, 2.0**-8
"""The same in bf16: its spacing on the whole log-probability, and some tenths of a nat for the sum's own noise."""


GRADIENT_NOISE = {"bf16": 0.1, "fp32": 1e-3}
"""Share of a gradient's norm by which two orders of arithmetic may differ; attention to a wrong token changes it whole.
bf16 keeps 8 bits, and its roundings add up over the layers."""


def training_mode(model: nn.Module) -> None:
    """Put a model in the mode that steps use: only LoRA's dropout, and gradient checkpointing, know of training.

    Transformers checkpoints layers in training mode only, so those stay in it, with their own dropout, layer drop and
    jitter at 0; every module inside them is in evaluation mode, as it is for the reference.
    """
    for name, module in model.named_modules():
        module.training = "lora_dropout" in name or bool(getattr(module, "gradient_checkpointing", False))
        if module.training and "lora_dropout" not in name:
            for key, value in vars(module).items():
                if isinstance(value, float) and any(word in key for word in ("drop", "jitter")):
                    setattr(module, key, 0.0)


def noise(logps_B: Tensor, precision: str) -> Tensor:
    """Nats by which each log-probability may differ between two right computations; shape of `logps_B`, fp64."""
    answer, nat = (BF16_ANSWER, BF16_NAT) if precision == "bf16" else (FP32_ANSWER, FP32_NAT)
    return answer + nat * logps_B.abs().double()


def first_step_fault(
    logps_B: Tensor,
    reference_B: Tensor,
    kl_raw: float,
    losses_B: Tensor,
    weights_B: Tensor,
    beta: float,
    precision: str,
) -> str | None:
    """What contradicts "the policy is its own reference at the first step", in words, or None.

    There every log-ratio and kl/raw are 0, and every loss is half its weight, but for the arithmetic's noise.
    """
    allowed_B = noise(reference_B, precision)
    off_B = (logps_B - reference_B).abs()
    worst = int(torch.argmax(off_B - allowed_B))
    if not bool(off_B[worst] <= allowed_B[worst]):
        return (
            f"an answer has log-probability {float(logps_B[worst]):.4f} under the policy and "
            f"{float(reference_B[worst]):.4f} under the reference, which it still is"
        )
    if not abs(kl_raw) <= float(allowed_B.mean()):
        return f"kl/raw is {kl_raw:.4f} nats, not 0"
    # A loss moves by at most a quarter of its weight per unit of beta * (r - z).
    moved_B = beta * (off_B + abs(kl_raw)) / 4 + 1e-6
    if not bool(((losses_B - weights_B / 2).abs() <= weights_B * moved_B).all()):
        return f"the losses are {losses_B.tolist()}, not half of their weights"
    return None
