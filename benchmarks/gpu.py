"""Everything that needs an NVIDIA GPU, in one command: the tests marked `gpu`, then training measured against TRL.

    make check-gpu
    .venv/bin/python benchmarks/gpu.py --rehearse    the same program with tiny models on a CPU: measures nothing

Models have random weights of the shapes of a 1B and a 7B Llama; time and memory do not depend on the values. Each
contender has a process of its own. Time is that of the optimizer steps alone: from a quarter of the way to the end,
so that neither loading nor the reference pass is in it. Model FLOPs are 6 per weight and token with gradients and 2
without; what checkpointing computes again does not count. What could not be checked here is listed at the end.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

ROOT = Path(__file__).parents[1]
GIB = 2**30
SHAPES = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 18, "num_attention_heads": 32},
    "7B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12, "4090": 165e12}
"""Dense bf16 FLOP a second, as NVIDIA states them."""
OURS = {"who": "ours", "tokens_per_pack": 8192}
TRL = [
    {"who": "trl", "precompute": True, "checkpointing": checkpointing, "micro_batch": micro_batch}
    for checkpointing in (False, True)
    for micro_batch in (4, 8)
]
TARGET_TRL, TARGET_MFU = 2.5, 0.4
Result = dict[str, Any]


def main() -> int:
    """Parse, and do everything that this machine can."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=48, help="preference pairs to train on")
    parser.add_argument("--rehearse", action="store_true", help="tiny models, on whatever there is")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(run_contender(json.loads(arguments.contender), arguments.folder)))
        return 0
    if not torch.cuda.is_available() and not arguments.rehearse:
        print("no NVIDIA GPU is visible to PyTorch here: nothing was checked", file=sys.stderr)
        return 1
    tests = 0 if arguments.rehearse else subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"], cwd=ROOT, check=False
    ).returncode  # fmt: skip
    met = measure(arguments)
    return 0 if tests == 0 and met else 1


def measure(arguments: argparse.Namespace) -> bool:
    """Print the table and what was not checked; whether the targets were met."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        feedback = write_pairs(folder / "pairs.jsonl", arguments.pairs)
        size = "tiny" if arguments.rehearse else "1B"
        model = make_model(folder / size, SHAPES[size])
        rows = [(name_of(c), measured(folder, {**c, "model": model, "feedback": feedback})) for c in (OURS, *TRL)]
        unchecked = [f"{name}: {result['error']}" for name, result in rows if "error" in result]
        good = [(name, result) for name, result in rows if "error" not in result]
        print(f"\n{device_name()}, torch {torch.__version__}, {contenders.precision()}, a {size} model\n")
        print(table(good))
        met = not arguments.rehearse and against_targets(good)
        unchecked += [] if arguments.rehearse else seven_billion(folder, feedback)
    if torch.cuda.device_count() < 2:
        unchecked.append("two GPUs: FSDP2 and data parallelism over NCCL (one GPU is visible)")
    print("\nNot checked here:\n" + "\n".join(f"- {line}" for line in unchecked or ["nothing"]))
    return met or arguments.rehearse


def against_targets(rows: list[tuple[str, Result]]) -> bool:
    """Ours against TRL's best, and against the device's peak."""
    mine = next((r for name, r in rows if name.startswith("kto-release")), None)
    theirs = [r["rate"] for name, r in rows if name.startswith("TRL")]
    if mine is None or not theirs:
        return False
    factor, share = mine["rate"] / max(theirs), mine["flops"] / peak()
    print(f"\n{factor:.2f} times TRL's best feedback per second (target {TARGET_TRL})")
    print(f"{share:.0%} of the device's peak (target {TARGET_MFU:.0%})")
    return factor >= TARGET_TRL and share >= TARGET_MFU


def seven_billion(folder: Path, feedback: str) -> list[str]:
    """A 7B with LoRA, where the estimate says that it fits; what was not checked."""
    model = make_model(folder / "7B", SHAPES["7B"])
    contender = {**OURS, "model": model, "feedback": feedback, "lora": {"rank": 16}}
    need, have = estimated(contender), torch.cuda.get_device_properties(0).total_memory
    if need > have:
        return [f"a 7B with LoRA: it needs about {need / GIB:.0f} GiB, and this device has {have / GIB:.0f}"]
    result = measured(folder, contender)
    if "error" in result:
        return [f"a 7B with LoRA: {result['error']}"]
    print("\nA 7B with LoRA of rank 16:\n\n" + table([("kto-release", result)]))
    return []


def table(rows: list[tuple[str, Result]]) -> str:
    """What was measured, as Markdown."""
    lines = ["| | feedback/s | model TFLOP/s | of the peak | peak memory | estimated |", "|---|---|---|---|---|---|"]
    for name, r in rows:
        estimate = f"{r['estimate'] / GIB:.1f} GiB" if "estimate" in r else ""
        lines.append(
            f"| {name} | {r['rate']:.2f} | {r['flops'] / 1e12:.1f} | {r['flops'] / peak():.0%} | "
            f"{r['memory'] / GIB:.1f} GiB | {estimate} |"
        )
    return "\n".join(lines)


def name_of(contender: dict[str, Any]) -> str:
    """For people."""
    if contender["who"] == "ours":
        return f"kto-release, packs of {contender['tokens_per_pack']} tokens"
    checkpointing = "" if contender["checkpointing"] else "no "
    return f"TRL 1.16, reference precomputed, {checkpointing}checkpointing, micro-batch {contender['micro_batch']}"


def device_name() -> str:
    """The device, or that there is none."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU (a rehearsal: no number means anything)"


def peak() -> float:
    """bf16 FLOP a second that the device can do: as its maker says, else of a large product, measured."""
    known = next((rate for name, rate in PEAKS.items() if name in device_name()), None)
    return known if known is not None else product_rate()


def product_rate(size: int = 4096, times: int = 20) -> float:
    """FLOP a second of square bf16 products on the GPU; a constant on a CPU, where nothing is measured."""
    if not torch.cuda.is_available():
        return 1e12
    left = torch.randn(size, size, dtype=torch.bfloat16, device="cuda")
    for count in (3, times):
        torch.cuda.synchronize()
        started = time.monotonic()
        for _ in range(count):
            left @ left
        torch.cuda.synchronize()
    return 2.0 * size**3 * times / (time.monotonic() - started)


def write_pairs(path: Path, count: int) -> str:
    """Invented pairs in TRL's conversational layout, with lengths that differ as those of people do."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from feedback_files import sentence, write_jsonl

    rng = random.Random(0)

    def turn(role: str, number: int, mean: int) -> list[dict[str, str]]:
        return [{"role": role, "content": sentence(number, max(3, min(int(rng.lognormvariate(0, 0.6) * mean), 220)))}]

    rows = [
        {
            "prompt": turn("user", number, 80),
            "chosen": turn("assistant", number + 1, 120),
            "rejected": turn("assistant", number + 2, 120),
        }
        for number in range(count)
    ]
    return str(write_jsonl(path, rows))


def make_model(folder: Path, shape: dict[str, int]) -> str:
    """A Llama of this shape with random weights in bf16, and the tests' small tokenizer."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from tiny import make_tiny_model
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    make_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([contenders.PADDING])
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        **shape,
        vocab_size=32_000,
        num_key_value_heads=shape["num_attention_heads"] // 4,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder)
    return str(folder)


def measured(folder: Path, contender: dict[str, Any]) -> Result:
    """What a contender's own process found, or the last line of what it said."""
    command = [sys.executable, __file__, "--contender", json.dumps(contender), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1][:200]}
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def run_contender(contender: dict[str, Any], folder: Path) -> Result:
    """Train, and look at what enters the embedding, and when."""
    seen: list[tuple[float, int, bool]] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seen.append((time.monotonic(), inputs[0].numel(), torch.is_grad_enabled()))

    hook = register_module_forward_pre_hook(look)
    try:
        {"ours": contenders.ours, "trl": contenders.trl}[contender["who"]](contender, folder)
    finally:
        hook.remove()
    result = rates(seen, contender)
    if contender["who"] == "ours":
        result["estimate"] = estimated(contender)
    return result


def rates(seen: list[tuple[float, int, bool]], contender: dict[str, Any]) -> Result:
    """Feedback and model FLOPs a second between the pass a quarter of the way and the last one with gradients."""
    steps = [place for place, (_, _, grad) in enumerate(seen) if grad]
    if len(steps) < 2:
        raise SystemExit("one pass with gradients is no time between two: take more --pairs")
    first, last = steps[len(steps) // 4], steps[-1]
    weights = contender_weights(contender["model"])
    # With adapters the base's own gradients are not computed.
    with_gradient = 4 if contender.get("lora") else 6
    window = seen[first:last]
    flops = sum((with_gradient if grad else 2) * weights * tokens for _, tokens, grad in window)
    seconds = seen[last][0] - seen[first][0]
    trained = sum(tokens for _, tokens, grad in window if grad) / sum(tokens for _, tokens, grad in seen if grad)
    rows = 2 * len(Path(contender["feedback"]).read_text(encoding="utf-8").splitlines())
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"rate": rows * trained / seconds, "flops": flops / seconds, "memory": memory}


def contender_weights(folder: str) -> int:
    """Weights that are multiplied with every token: all but the input embedding."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    from kto_release.models import stored_weights

    return stored_weights(Path(folder)).parameters - int(config["vocab_size"] * config["hidden_size"])


def estimated(contender: dict[str, Any]) -> float:
    """What the dry run says that a device needs, in bytes."""
    from transformers import AutoConfig

    from kto_release.train.device import recomputes_activations
    from kto_release.train.launch_file import read_devices
    from kto_release.train.memory import estimate

    train = contenders.recipe_of(contender).train
    bf16, checkpointing = contenders.precision() == "bf16", recomputes_activations(train)
    config = AutoConfig.from_pretrained(contender["model"])
    return estimate(config, train, read_devices(None), bf16=bf16, checkpointing=checkpointing).total()


if __name__ == "__main__":
    sys.exit(main())
