"""What a narrower dtype keeps of a training, by either rounding: `python benchmarks/rounding.py RUN [RUN …]`.

RUN is the run directory of a finished training whose base model is here. Of each iteration the trained weights are
rounded to bfloat16 to the nearest and stochastically, and measured on the rows that training recorded, as
`kto-release publish` does. Nothing in the run is changed.
"""

import argparse
import tempfile
from pathlib import Path

import yaml

from kto_release import console
from kto_release.kept import kept, logprobs, noise, read_rows
from kto_release.models import locate
from kto_release.recipe import Recipe
from kto_release.run import Run
from kto_release.weights import Rounding, prepare_weights

ROUNDINGS: tuple[Rounding, ...] = ("nearest", "stochastic")


def main() -> None:
    """Print a table with a line for each iteration and rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    rows = [row for path in parser.parse_args().runs for row in measured(path)]
    columns = ["run", "learning rate", "steps", "rounding", "kept", "95% interval", "rows", "noise (nats)"]
    console.table("bfloat16", columns, rows)


def measured(path: Path) -> list[list[object]]:
    """The rows of one run."""
    recipe = Recipe.model_validate(yaml.safe_load((path / "recipe.yaml").read_text(encoding="utf-8")))
    run, base = Run(recipe, path), locate(recipe.model.base, recipe.model.revision)
    found: list[list[object]] = []
    steps = 0
    for record in run.iteration_records():
        steps += record.training.steps
        checked = read_rows(run.iteration(record.iteration))
        prompts = {row.digest: tuple(row.prompt) for row in checked}
        source = run.path / (record.model.path or "")
        for rounding in ROUNDINGS:
            with tempfile.TemporaryDirectory(prefix="kto-release-") as scratch:
                folder = Path(scratch)
                prepare_weights(source, base.path, folder, "bfloat16", tied=True, rounding=rounding)
                (folder / "config.json").write_bytes((source / "config.json").read_bytes())
                values = logprobs(folder, checked)
            share = kept(record.logprobs, values, record.initial_logprobs, prompts)
            if share is None:
                continue
            interval = f"{share.low:.3f} to {share.high:.3f}"
            rate, off = f"{record.training.learning_rate:g}", f"{noise(record.logprobs, values):.2f}"
            found.append([path.name, rate, steps, rounding, f"{share.value:.3f}", interval, share.n, off])
    return found


if __name__ == "__main__":
    main()
