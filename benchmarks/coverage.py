"""How often do the intervals hold the true score? `python benchmarks/coverage.py [--data DIR]`.

1,000 sets of 805 judged instructions are drawn from a population whose scores are known: a made-up one, or the 805 rows
of a real model (with --data, a folder of alpaca_eval's annotations/ and hub/df_gamed.csv). For each set the intervals
of kto-release are computed as `kto-release eval` does, with the regularization chosen anew by alpaca_eval's own
cross-validation, and so is the one that alpaca_eval's lc_standard_error would give. Minutes on one core.

`--few` measures the intervals under 200 instructions, and how often the test calls one of two equal models better.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from made_up import COEFFICIENTS, gamed_data, population

from kto_release.evaluate.scoring import alpaca
from kto_release.evaluate.scoring.few import difference_interval, rate_interval
from kto_release.evaluate.scoring.intervals import (
    length_controlled_replicates,
    length_model,
    resamples,
    win_rate_replicates,
)
from kto_release.evaluate.scoring.length_data import LcData, read_lc_data
from kto_release.evaluate.scoring.placed import place
from kto_release.evaluate.scoring.verdict import verdict_of
from kto_release.judges.rows import read_rows

SIZE = 805


def made_up(folder: Path) -> tuple[LcData, np.ndarray, np.ndarray]:
    """The gamed baselines, preferences and length differences of 20,000 made-up instructions."""
    data = gamed_data(folder)
    difficulty = np.random.default_rng(0).normal(0, 0.6, 20_000)
    made = population(difficulty, seed=7)
    return data._replace(difficulty=difficulty), made.preferences, made.differences


def recorded(folder: Path, model: str) -> tuple[LcData, np.ndarray, np.ndarray]:
    """The same of a real model's 805 judgements."""
    rows = place(read_rows(folder / "annotations" / f"{model}.json.xz").rows, None).rows
    differences = [len(row.reference) - len(row.output) for row in rows]
    data = read_lc_data(folder / "hub" / "df_gamed.csv")
    return data, np.array([row.preference for row in rows], float), np.array(differences, float)


def measure(name: str, data: LcData, preferences: np.ndarray, differences: np.ndarray, sets: int, draws: int) -> None:
    """Print how often each interval holds the true value."""
    random, start = np.random.default_rng(1), time.monotonic()
    size = len(preferences)
    truth = (preferences - 1).mean() * 100
    everything = length_model(preferences, differences, data, 10.0, COEFFICIENTS)
    controlled = float(length_controlled_replicates(everything, np.full((1, size), SIZE / size))[0])
    held = np.zeros(3)
    for number in range(sets):
        rows = random.integers(0, size, SIZE)
        drawn = data._replace(difficulty=data.difficulty[rows])
        fit = alpaca.length_controlled(preferences[rows].tolist(), differences[rows].tolist(), drawn)
        model = length_model(preferences[rows], differences[rows], drawn, fit.regularization, fit.coefficients)
        counts = resamples(SIZE, draws, seed=number)
        for which, (true, values) in enumerate(
            [
                (truth, win_rate_replicates(preferences[rows], counts)),
                (controlled, length_controlled_replicates(model, counts)),
            ]
        ):
            low, high = np.quantile(values, [0.025, 0.975])
            held[which] += low <= true <= high
        _, hard, own = fit.coefficients
        fitted = 100 / (1 + np.exp(-(hard * drawn.difficulty + own)))
        held[2] += abs(fit.rate - controlled) <= 1.96 * fitted.std(ddof=1) / math.sqrt(SIZE)
    print(f"\n{name}: win rate {truth:.1f}%, length-controlled {controlled:.1f}%")
    print(f"{sets} sets of {SIZE} instructions, {draws} resamples each, {time.monotonic() - start:.0f} s")
    for label, count in zip(
        ["win rate, bootstrap", "length-controlled, bootstrap", "length-controlled, lc_standard_error"],
        held,
        strict=True,
    ):
        share = count / sets
        print(f"  {label:38} {share:6.1%} ± {math.sqrt(share * (1 - share) / sets):.1%}")


def measure_small(name: str, preferences: np.ndarray, sets: int, draws: int) -> None:
    """Print how often the win rate's interval holds the true one for small sets."""
    random = np.random.default_rng(2)
    truth = (preferences - 1).mean() * 100
    line = []
    for size in (20, 50, 100, 200, 400):
        counts = resamples(size, draws, seed=0)
        held = 0
        for _ in range(sets):
            rates = win_rate_replicates(preferences[random.integers(0, len(preferences), size)], counts)
            low, high = np.quantile(rates, [0.025, 0.975])
            held += low <= truth <= high
        line.append(f"n={size}: {held / sets:.1%}")
    print(f"  {name} ({truth:.1f}%), win rate only: {', '.join(line)}")


def few(sets: int) -> None:
    """Print the coverage of the intervals under 200 instructions, and the level of the test."""
    random, none = np.random.default_rng(3), np.zeros(0)
    rates = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
    print("| instructions | " + " | ".join(f"{rate:.0%}" for rate in rates) + " |")
    print("|---" * (len(rates) + 1) + "|")
    for size in (20, 40, 80, 120, 160, 199):
        cells = []
        for rate in rates:
            worlds = [random.random((sets, size)) < rate, random.beta(rate, 1 - rate, (sets, size))]
            if 0.2 <= rate <= 0.8:  # three of ten are drawn
                drawn = random.random((sets, size)) < 0.3
                worlds.append(np.where(drawn, 0.5, random.random((sets, size)) < (rate - 0.15) / 0.7))
            held = []
            for world in worlds:
                intervals = [rate_interval(float(one.mean() * 100), one, none) for one in world.astype(float)]
                held.append(np.mean([one.low <= 100 * rate <= one.high for one in intervals]))
            cells.append(f"{min(held):.1%}")
        print(f"| {size} | {' | '.join(cells)} |")
    for size in (10, 24, 50, 100):
        false = 0
        for _ in range(sets):
            quality = random.beta(1, 1, size)
            gains = np.subtract(*(np.clip(quality + random.normal(0, 0.2, size), 0, 1) for _ in "ab"))
            false += verdict_of(gains, difference_interval(gains, none, 0)).said != "not distinguishable"
        print(f"{size} instructions: one of two equal models is called better in {false / sets:.1%}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with annotations/ and hub/df_gamed.csv")
    parser.add_argument("--models", nargs="+", default=["claude-2.1", "gemma-2b-it"], help="with --data")
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--few", action="store_true", help="only sets of fewer than 200 instructions")
    arguments = parser.parse_args()
    if arguments.few:
        few(arguments.sets)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        worlds = [("made up", *made_up(Path(folder)))]
    if arguments.data:
        worlds = [(model, *recorded(arguments.data, model)) for model in arguments.models]
    for world in worlds:
        measure(*world, arguments.sets, arguments.resamples)
        measure_small(world[0], world[2], arguments.sets, arguments.resamples)


if __name__ == "__main__":
    main()
