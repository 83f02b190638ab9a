"""Training side by side with TRL's KTOTrainer: the same pairs, the same model, each contender in a process of its own.

    make bench-train                                     everything, and the tables in benchmarks/README.md
    .venv/bin/python benchmarks/training.py --only short-bf16   one part, printed: PARTS below
    .venv/bin/python benchmarks/training.py --only long-fp32 --pairs 24 --steps 6   less of it

Each contender is a process that goes from the feedback to trained weights on disk. Its steps are what its trainer's
`train` takes, the reference's log-probabilities among them; all else (imports, tokenisation, checks, saving) is its
fixed costs. TRL runs in each combination of what it offers: reference precomputed or beside, gradient checkpointing or
not, micro-batches of 2 and 4. Tokens are counted where they enter the model. Then: what a token costs as the data grows
and as answers grow longer, and how long reading takes.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import contenders
from contenders import BATCH, MAX_LENGTH

PAIRS = Path(__file__).parents[2] / "shared" / "data" / "preferences" / "dpo_en_demo.json"
QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart"
TRL = [
    {"who": "trl", "precompute": precompute, "checkpointing": checkpointing, "micro_batch": micro_batch}
    for precompute in (True, False)
    for checkpointing in (False, True)
    for micro_batch in (4, 2)
]
"""Micro-batches of two hold less padding; their KL estimate is over two completions."""
SIDES = [f"{length}-{precision}" for length in ("short", "long") for precision in ("bf16", "fp32")]
PARTS = [*SIDES, "rows", "length", "reading"]
Result = dict[str, float]


def main() -> None:
    """Parse, and do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=120, help="most preference pairs to train on")
    parser.add_argument("--steps", type=int, default=30, help="fewest optimizer steps, in as many epochs as that takes")
    parser.add_argument("--model", help="a folder or Hub id instead of SmolLM2-135M-Instruct")
    parser.add_argument("--tokens-per-pack", type=int, default=1280, help="ours: most tokens of a pack")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--write", type=Path, help="a Markdown file whose part on training is replaced")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run_contender(json.loads(arguments.contender), arguments.folder)
        return
    text = compare(arguments)
    print(text)
    if arguments.write:
        from table import replace_part

        replace_part(arguments.write, "training", text)


def compare(arguments: argparse.Namespace) -> str:
    """Every contender in turn; the tables as Markdown."""
    from kto_release import demo

    model = arguments.model or str(demo.prepare().path)
    parts = [f"{machine()}, kto-release {version('kto-release')} at {commit()}."]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for side in SIDES if arguments.only is None else [arguments.only] if arguments.only in SIDES else []:
            length, precision = side.split("-")
            if precision == "bf16" and contenders.precision() != "bf16":
                parts.append(f"{length.capitalize()} answers, bf16: not measured, this processor has none.")
            else:
                parts.append(side_by_side(folder, model, arguments, length, precision))
        if arguments.only in (None, "rows"):
            parts.append(growing_data(folder))
        if arguments.only in (None, "length"):
            parts.append(growing_length(folder, model))
        if arguments.only in (None, "reading"):
            parts.append(reading(folder, model))
    return "\n\n".join(parts)


def side_by_side(folder: Path, model: str, arguments: argparse.Namespace, length: str, precision: str) -> str:
    """Ours beside all of TRL's settings on the same pairs, each in a fresh process; the factor is against its best."""
    pairs, source = choose_pairs(model, arguments.pairs, length)
    epochs = max(1, -(-arguments.steps * BATCH // (2 * len(pairs))))
    shared = {
        "model": model,
        "feedback": str(write(folder / "pairs.jsonl", pairs)),
        "precision": precision,
        "epochs": epochs,
    }
    mine = {"who": "ours", "tokens_per_pack": arguments.tokens_per_pack}
    found = {name_of(setting): measured(folder, {**setting, **shared}) for setting in [mine, *TRL]}
    ours = found.pop(name_of(mine))
    best, theirs = min(found.items(), key=lambda item: item[1]["steps"])
    feedback = 2 * len(pairs) * epochs
    heading = (
        f"{length.capitalize()} answers, {precision}: {feedback} feedback ({len(pairs)} pairs of {source}, {epochs} "
        f"epochs, both answers within {MAX_LENGTH} tokens), {BATCH} a step:"
    )
    floor = ours["work"] / peak_flops(precision)
    verdict = (
        f"**{theirs['steps'] / ours['steps']:.2f} times** the speed of TRL's best setting ({best}), "
        f"**{ours['peak'] / theirs['peak']:.2f}** of its peak memory; fixed costs {ours['fixed']:.0f} s against "
        f"{theirs['fixed']:.0f} s. The floor, the least arithmetic at the measured peak of a matrix product, is "
        f"{floor:.0f} s of our {ours['steps']:.0f} s."
    )
    return "\n\n".join([heading, table({name_of(mine): ours, **found}, feedback), verdict])


def peak_flops(precision: str) -> float:
    """Floating-point operations per second of the best of five matrix products of 2048 x 2048."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(2048, 2048, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        float((left @ right).sum())
        seconds.append(time.perf_counter() - started)
    return float(2 * 2048**3 / min(seconds))


def table(results: dict[str, Result], feedback: int) -> str:
    """A row for each contender."""
    lines = [
        "| | steps (s) | feedback/s | fixed costs (s) | tokens computed per useful token | padding | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        lines.append(
            f"| {name} | {result['steps']:.0f} | {feedback / result['steps']:.3f} | {result['fixed']:.0f} | "
            f"{result['tokens'] / result['useful']:.2f} | {result['padding'] / result['tokens']:.0%} | "
            f"{result['peak'] / 2**30:.2f} GiB |"
        )
    return "\n".join(lines)


def name_of(setting: dict[str, Any]) -> str:
    """A contender in words."""
    if setting["who"] == "ours":
        return f"kto-release, packs of {setting['tokens_per_pack']} tokens"
    reference = "reference precomputed" if setting["precompute"] else "reference beside"
    checkpointing = "checkpointing" if setting["checkpointing"] else "no checkpointing"
    return f"TRL 1.16, {reference}, {checkpointing}, micro-batch {setting['micro_batch']}"


def choose_pairs(model: str, count: int, length: str) -> tuple[list[dict[str, Any]], str]:
    """The first pairs of which both answers fit, so that nobody cuts or drops any; and where they come from.

    Short ones are the quickstart's; long ones are of a file of conversations, without which there are none.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if length == "long":
        if not PAIRS.is_file():
            sys.exit(f"no long pairs: {PAIRS.name} is not there")
        pairs, source = [as_messages(row) for row in json.loads(PAIRS.read_text(encoding="utf-8"))], PAIRS.name
    else:
        paths = sorted(QUICKSTART.glob("iteration-*.jsonl"))
        rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
        pairs, source = [as_messages(row) for row in rows if "chosen" in row], "the quickstart's feedback"

    def fits(pair: dict[str, Any]) -> bool:
        whole = (tokenizer.apply_chat_template(pair["prompt"] + pair[side]) for side in ("chosen", "rejected"))
        return max(len(ids["input_ids"]) for ids in whole) <= MAX_LENGTH

    fitting = (pair for pair in pairs if fits(pair))
    return [pair for pair, _ in zip(fitting, range(count), strict=False)], source


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """A pair in TRL's conversational layout."""
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    if "conversations" in row:
        prompt = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        sides = {side: row[side]["value"] for side in ("chosen", "rejected")}
    else:
        prompt, sides = [{"role": "user", "content": row["prompt"]}], {s: row[s] for s in ("chosen", "rejected")}
    return {"prompt": prompt, **{s: [{"role": "assistant", "content": text}] for s, text in sides.items()}}


def growing_data(folder: Path) -> str:
    """Microseconds per token with 100, 1,000 and 10,000 rows, on a model so small that bookkeeping would show."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from tiny import make_tiny_model

    model = str(make_tiny_model(folder / "tiny"))
    lines = ["| rows | tokens computed | microseconds per token | against 100 rows |", "|---|---|---|---|"]
    first = 0.0
    for rows in (100, 1_000, 10_000):
        result = measured(folder, scaling(folder, model, rows=rows, words=24))
        cost = result["seconds"] / result["tokens"]
        first = first or cost
        lines.append(f"| {rows:,} | {result['tokens']:,.0f} | {cost * 1e6:.1f} | {cost / first:.2f} |")
    heading = "What a token costs as the data grows, with a model of two tiny layers so that bookkeeping would show:"
    return heading + "\n\n" + "\n".join(lines)


def growing_length(folder: Path, model: str) -> str:
    """Milliseconds per token as answers grow longer, beside the arithmetic that the model asks for."""
    lines = [
        "| tokens of a sequence | milliseconds per token | against the shortest | arithmetic per token |",
        "|---|---|---|---|",
    ]
    first: tuple[float, float] | None = None
    for words in (100, 400, 1_200):
        result = measured(folder, scaling(folder, model, rows=max(4, 2_400 // words), words=words))
        length = result["useful"] / result["rows"]
        cost, work = result["seconds"] / result["tokens"], arithmetic_per_token(model, length)
        first = first or (cost, work)
        lines.append(f"| {length:,.0f} | {cost * 1e3:.2f} | {cost / first[0]:.2f} | {work / first[1]:.2f} |")
    return "What a token costs as sequences grow longer, SmolLM2-135M:\n\n" + "\n".join(lines)


def reading(folder: Path, model: str) -> str:
    """Seconds and peak memory of reading, checking and tokenising 10,000 and 100,000 rows."""
    lines = ["| rows | tokens a row | seconds | peak memory |", "|---|---|---|---|"]
    for rows in (10_000, 100_000):
        result = measured(folder, {**scaling(folder, model, rows=rows, words=250), "who": "reading"})
        lines.append(
            f"| {rows:,} | {result['tokens'] / result['rows']:.0f} | {result['seconds']:.0f} | "
            f"{result['peak'] / 2**30:.2f} GiB |"
        )
    return "Reading, checking and tokenising labelled rows of JSONL, SmolLM2's tokenizer:\n\n" + "\n".join(lines)


def scaling(folder: Path, model: str, *, rows: int, words: int) -> dict[str, Any]:
    """A contender on made-up rows with labels: one prompt and one answer of so many common words each."""
    rng = random.Random(0)
    common = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "by", "door", "what", "is", "of", "in", "week"]

    def text(count: int) -> str:
        return " ".join(rng.choices(common, k=count))

    made = [{"prompt": f"{row} {text(8)}", "completion": text(words), "label": row % 2 == 0} for row in range(rows)]
    path = write(folder / f"made-{rows}-{words}.jsonl", made)
    limits = {"max_length": 2 * words + 64, "tokens_per_pack": max(MAX_LENGTH, 2 * words + 64)}
    return {"who": "scaling", "model": model, "feedback": str(path), **limits}


def arithmetic_per_token(model: str, length: float) -> float:
    """Multiplications per token of a causal forward pass: the weights', and attention's over half the length."""
    config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_key_value_heads"] / config["num_attention_heads"]
    weights = layers * hidden * (hidden * (2 + 2 * heads) + 3 * config["intermediate_size"])
    return float(weights + hidden * config["vocab_size"] + layers * length * hidden)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measured(folder: Path, contender: dict[str, Any]) -> Result:
    """What a contender's own process reports."""
    told = folder / "result.json"
    told.unlink(missing_ok=True)
    launched = {**contender, "launched": time.time()}
    command = [sys.executable, __file__, "--contender", json.dumps(launched), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not told.exists():
        sys.exit(f"{contender} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    result: Result = json.loads(told.read_text(encoding="utf-8"))
    print(json.dumps({**contender, **result}), file=sys.stderr, flush=True)
    return result


def run_contender(contender: dict[str, Any], folder: Path) -> None:
    """Train, and leave seconds, fixed costs, tokens and the peak of resident memory (bytes) in a file."""
    who = {"trl": contenders.trl, "reading": contenders.reading}.get(contender["who"], contenders.ours)
    result = who(contender, folder)
    if "steps" in result:
        result["fixed"] = time.time() - contender["launched"] - result["steps"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (folder / "result.json").write_text(json.dumps({**result, "peak": peak}), encoding="utf-8")


def commit() -> str:
    """The commit that is measured."""
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "no commit"


def machine() -> str:
    """Where and when."""
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    device = (
        torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{torch.get_num_threads()} cores of {name}"
    )
    return f"{device}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    main()
