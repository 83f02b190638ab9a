"""Tokens per second of our vLLM engine, side by side with a bare `LLM.generate` on the same prompts.

    python benchmarks/generation.py MODEL [--prompts 32] [--max-tokens 64] [--rounds 3]

MODEL is a folder. Ours journals every answer with fsync as it finishes, as `kto-release eval` does. Both sides hold the
model in a process of their own and take turns, so that a busy machine disturbs both alike. Both sample with a seed for
each prompt, so both must give the same answers, or there is no table.
"""

import argparse
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kto_release.engines import Model, Request, Sampling
from kto_release.engines.vllm import VllmEngine, environment
from kto_release.files import append_jsonl
from kto_release.recipe import EngineSection
from kto_release.templates import eos_ids, render

QUESTIONS = [
    "Explain why the sky is blue.",
    "Write a short poem about winter.",
    "What is two plus two?",
    "Name three colours and a thing of each.",
    "How do I boil an egg?",
    "Give me reasons to learn a language.",
    "What does a mayor do?",
    "Describe a river to someone who has never seen water.",
]


def bare(pipe: Connection, options: dict[str, Any], requests: list[Request], sampling: Sampling) -> None:
    """vLLM alone: loaded once, then `generate` each time that the pipe says so."""
    environment(0, 1)
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    llm = LLM(**options)
    prompts = [TokensPrompt(prompt_token_ids=request.ids) for request in requests]
    parameters = [
        SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(sampling.stop_ids),
            seed=request.seed,
        )
        for request in requests
    ]
    pipe.send("ready")
    while pipe.recv():
        start = time.monotonic()
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        pipe.send((time.monotonic() - start, [list(output.outputs[0].token_ids) for output in outputs]))


def ours(engine: VllmEngine, requests: list[Request], sampling: Sampling) -> tuple[float, list[list[int]]]:
    """The engine, with a line on disk for every answer."""
    found: dict[int, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        for index, completion in engine.generate(requests, sampling):
            append_jsonl(Path(folder) / "answers.jsonl", {"index": index, "ids": completion.ids})
            found[index] = completion.ids
        seconds = time.monotonic() - start
    return seconds, [found[index] for index in range(len(requests))]


def main() -> None:
    """Take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    dtype = str(AutoConfig.from_pretrained(arguments.model).dtype).removeprefix("torch.")
    prompts = [render(tokenizer, [{"role": "user", "content": question}], prompt=True) for question in QUESTIONS]
    requests = [Request(prompts[number % len(prompts)], number) for number in range(arguments.prompts)]
    sampling = Sampling(0.7, 0.95, None, arguments.max_tokens, tuple(eos_ids(arguments.model)))
    longest = max(map(len, prompts)) + arguments.max_tokens

    log = Path(tempfile.mkdtemp()) / "vllm.log"
    engine = VllmEngine(Model(arguments.model, dtype), EngineSection(), longest=longest, log=log)
    context = get_context("spawn")
    pipe, other = context.Pipe()
    options = {
        "model": str(arguments.model),
        "dtype": dtype,
        "max_model_len": longest,
        "enforce_eager": engine.hardware is None,
    }
    process = context.Process(target=bare, args=(other, options, requests, sampling))
    process.start()
    pipe.recv()
    rates: dict[str, list[float]] = {"kto-release": [], "LLM.generate": []}
    try:
        for _ in range(arguments.rounds + 1):
            pipe.send(True)
            seconds, texts = pipe.recv()
            stops = set(sampling.stop_ids)
            expected = [ids[:-1] if ids and ids[-1] in stops else ids for ids in texts]
            own_seconds, found = ours(engine, requests, sampling)
            if found != expected:
                sys.exit("the answers differ: these are not two ways to do the same")
            tokens = sum(map(len, texts))
            rates["LLM.generate"].append(tokens / seconds)
            rates["kto-release"].append(tokens / own_seconds)
    finally:
        pipe.send(False)
        process.join()
        engine.close()
    print(f"\n{len(requests)} prompts, {tokens} tokens, {dtype}, {engine.hardware or 'CPU'}, vLLM {engine.version}")
    print("\n| | tokens/s (median; all) |\n|---|---|")
    kept = {name: values[1:] for name, values in rates.items()}  # the first turn warms up
    for name, values in kept.items():
        print(f"| {name} | {statistics.median(values):.1f}; {', '.join(f'{value:.1f}' for value in values)} |")
    pairs = zip(kept["kto-release"], kept["LLM.generate"], strict=True)
    print(f"\nkto-release gives {statistics.median(a / b for a, b in pairs):.3f} of LLM.generate's tokens/s.")


if __name__ == "__main__":
    main()
