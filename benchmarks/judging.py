"""How long judging takes, side by side with alpaca_eval: the same pairs, the same judge, the same concurrency.

    python benchmarks/judging.py ANNOTATIONS [--delay 0.5] [--concurrency 32]

ANNOTATIONS is a file of recorded judgements in alpaca_eval's format (.json, .xz, .gz). A judge on loopback, in its own
process, answers each request after `--delay` seconds with what is recorded; both sides must reproduce the recorded
preferences, or there is no table. Each side runs in a fresh process; the time is that of judging, imports excluded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kto_release.judges.rows import Judged, read_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

CHUNKS = (32, 128)
"""alpaca_eval's chunk sizes that are measured: its pool drains at the end of each; 128 is its default."""


def serve(rows: list[Judged], delay: float) -> None:
    """Answer as recorded until the pipe on standard input closes."""
    from judge_server import judge_server

    preferences = {(row.instruction.strip(), row.output): row.preference for row in rows}

    def prefer(instruction: str, first: str, second: str) -> float:
        # The prompt is stripped, so an answer's own outer whitespace may be gone; the instruction tells the row.
        if (wins := preferences.get((instruction.strip(), second))) is not None:
            return 2 - wins
        wins = preferences.get((instruction.strip(), first))
        return 0.5 if wins is None else wins - 1

    with judge_server(prefer, delay=delay) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def ours(rows: list[Judged], url: str, concurrency: int) -> dict[str, float]:
    """Seconds and mean preference by kto-release: each judgement is on disk before the next is asked for."""
    from kto_release.judges.asking import Journal, Pair, judge_pairs
    from kto_release.judges.openai import OpenAIJudge
    from kto_release.judges.prompt import load_prompt
    from kto_release.recipe import OpenAIJudge as Section

    section = Section(kind="openai", model="gpt-x", base_url=url, concurrency=concurrency)
    pairs = [Pair(row.instruction, row.dataset or "", 0, row.reference, row.output) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        result = judge_pairs(OpenAIJudge(section, load_prompt("alpaca_eval")), pairs, Journal(Path(folder)))
        seconds = time.monotonic() - start
    return {"seconds": seconds, "preference": mean([row.preference for row in result.rows])}


def theirs(rows: list[Judged], chunksize: int) -> dict[str, float]:
    """Seconds and mean preference by alpaca_eval; endpoint and concurrency are in its environment variables."""
    from alpaca_eval.annotators import PairwiseAnnotator

    with tempfile.TemporaryDirectory() as folder:
        annotator = PairwiseAnnotator(
            annotators_config="weighted_alpaca_eval_gpt4_turbo", caching_path=f"{folder}/cache.json"
        )
        sides = {"reference": [row.reference for row in rows], "model": [row.output for row in rows]}
        outputs = [
            [
                {"instruction": row.instruction, "output": text, "generator": name}
                for row, text in zip(rows, texts, strict=True)
            ]
            for name, texts in sides.items()
        ]
        start = time.monotonic()
        found = annotator.annotate_head2head(*outputs, chunksize=chunksize)
        seconds = time.monotonic() - start
    return {"seconds": seconds, "preference": mean([row["preference"] for row in found])}


def mean(values: list[float | None]) -> float:
    """The mean; a missing value is an error."""
    if None in values:
        sys.exit(f"{values.count(None)} judgements are missing: there is nothing to compare")
    return sum(value for value in values if value is not None) / len(values)


def measure(arguments: argparse.Namespace) -> None:
    """Run both sides, and print the table."""
    rows = read_rows(arguments.annotations).rows
    recorded = mean([row.preference for row in rows])
    questions = sum(row.reference != row.output for row in rows)
    floor = -(-questions // arguments.concurrency) * arguments.delay
    server = subprocess.Popen(
        [*command(arguments), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        results = {"kto-release": side(arguments, url, "--ours")}
        for size in CHUNKS:
            results[f"alpaca_eval, chunks of {size}"] = side(arguments, url, "--theirs", str(size))
    finally:
        server.communicate()
    own = results["kto-release"]["seconds"]
    print(f"\n{len(rows)} pairs, {questions} questions, {arguments.delay} s each, {arguments.concurrency} at a time:")
    print(f"no less than {floor:.1f} s. Recorded mean preference: {recorded:.6f}\n")
    print("| | seconds | mean preference | kto-release takes of it |\n|---|---|---|---|")
    for name, result in results.items():
        if abs(result["preference"] - recorded) > 1e-6:
            sys.exit(f"{name}: mean preference {result['preference']}, where {recorded} is recorded")
        print(f"| {name} | {result['seconds']:.1f} | {result['preference']:.6f} | {own / result['seconds']:.2f} |")


def side(arguments: argparse.Namespace, url: str, *flags: str) -> dict[str, float]:
    """What one side prints, run in a process of its own."""
    environment = os.environ | {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": url,
        "OPENAI_MAX_CONCURRENCY": str(arguments.concurrency),
    }
    result = subprocess.run(
        [*command(arguments), *flags, "--url", url], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(result.stdout.splitlines()[-1]))


def command(arguments: argparse.Namespace) -> list[str]:
    """This program again, with the same settings."""
    settings = ["--delay", str(arguments.delay), "--concurrency", str(arguments.concurrency)]
    return [sys.executable, __file__, str(arguments.annotations), *settings]


def main() -> None:
    """Parse, and do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--delay", type=float, default=0.5)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--theirs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = read_rows(arguments.annotations).rows
    if arguments.serve:
        serve(rows, arguments.delay)
    elif arguments.ours:
        print(json.dumps(ours(rows, arguments.url, arguments.concurrency)))
    elif arguments.theirs:
        print(json.dumps(theirs(rows, arguments.theirs)))
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
