"""The command line: parse, load the recipe, call one function each.

Nothing heavy is imported before a command runs: `kto-release --help` must answer at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kto_release.errors import KtoReleaseError

app = typer.Typer(
    name="kto-release",
    help="Train a language model with iterative KTO, prove it better, and release it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE", show_default=False)]
OptionalRecipe = Annotated[
    Path | None, typer.Argument(help="The recipe, a YAML file.", metavar="[RECIPE]", show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the recipe: train.beta=0.2", metavar="KEY=VALUE")
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the run directories.", metavar="DIR")]


def _version(value: bool) -> None:
    if value:
        from kto_release import __version__, console

        console.say(f"kto-release {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train a language model with iterative KTO, prove it better, and release it."""
    del debug, version  # read by `main` and by `_version`


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what will happen, write nothing, train nothing.")
    ] = False,
    launch: Annotated[
        Path | None,
        typer.Option("--launch", help="Train on many devices: an accelerate configuration.", metavar="CONFIG"),
    ] = None,
) -> None:
    """Train the recipe's iterations of KTO; finished ones are skipped, a broken one goes on."""
    from kto_release.recipe_file import load_recipe
    from kto_release.run import Run

    loaded = load_recipe(recipe, overrides or [])
    if launch is not None and not dry_run:
        from kto_release.train.launch import launch as launch_processes

        launch_processes(launch, recipe, overrides or [], runs)
        return
    from kto_release import train as stage

    run = Run.open(loaded, runs)
    if dry_run:
        stage.preview(run, launch)
    else:
        stage.train(run)


@app.command("eval")
def evaluate(
    recipe: Annotated[
        list[Path] | None,
        typer.Argument(
            help="The recipe, a YAML file; with --compare further folders.", metavar="[RECIPE]", show_default=False
        ),
    ] = None,
    *,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    model: Annotated[
        str | None,
        typer.Option(
            help="Evaluate this model instead of the last iteration: initial, iteration-2, a folder or a Hub id."
        ),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(help="Judge these stored answers instead (alpaca_eval's model_outputs.json).", metavar="FILE"),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Score these recorded judgements instead (alpaca_eval's format).", metavar="FILE"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="With --annotations or --compare: the folder for the results.", metavar="DIR"),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="With --annotations: the judge, where the file names none.", metavar="NAME")
    ] = None,
    lc_data: Annotated[
        Path | None, typer.Option(help="Take the data for length control from this df_gamed.csv.", metavar="FILE")
    ] = None,
    no_lc: Annotated[bool, typer.Option("--no-lc", help="Give no length-controlled win rate.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Score incomplete judgements: marked, and not length-controlled.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Compare evaluations, instruction by instruction; more of them may follow.",
            metavar="RUN_A RUN_B [RUN_C ...]",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Have the recipe's judge judge these models of known scores.", metavar="DIR_OF_ANCHORS"),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=2, help="With --calibrate: instructions per anchor.", metavar="N")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --calibrate: seed of the sample.")] = 0,
) -> None:
    """Generate answers, ask the judge, score with AlpacaEval 2.0, and say how sure the score is."""
    from kto_release.evaluate.options import Calibrate, Compare, ScoreFile, asked

    job = asked(
        named=recipe or [],
        overrides=overrides or None,
        model=model,
        outputs=outputs,
        annotations=annotations,
        output=output,
        judge=judge,
        lc_data=lc_data,
        length_control=not no_lc,
        allow_partial=allow_partial,
        compare=compare,
        calibrate=calibrate,
        sample=sample,
        seed=seed or None,
    )
    if isinstance(job, Compare):
        from kto_release.evaluate.comparison.command import compare_runs

        compare_runs(**job._asdict())
    elif isinstance(job, ScoreFile):
        from kto_release.evaluate.score_file import score_annotations

        score_annotations(**job._asdict())
    else:
        from kto_release import evaluate as stage
        from kto_release.recipe_file import load_recipe
        from kto_release.run import Run

        run = Run.open(load_recipe(job.recipe, overrides or []), runs)
        if isinstance(job, Calibrate):
            from kto_release.evaluate.calibration.command import calibrate_judge

            calibrate_judge(run, job.anchors, sample=job.sample, seed=job.seed)
        else:
            stage.evaluate(
                run,
                job.model,
                outputs=job.outputs,
                lc_data=job.lc_data,
                length_control=job.length_control,
                allow_partial=job.allow_partial,
            )


@app.command("judge")
def judge_(recipe: RecipeArgument, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Ask the recipe's judge five small pairs: how it answers, whether it is any good, what judging will cost."""
    from kto_release.evaluate.trying import try_judge
    from kto_release.recipe_file import load_recipe
    from kto_release.run import Run

    try_judge(Run.open(load_recipe(recipe, overrides or []), runs))


@app.command()
def publish(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show exactly what would be sent, and send nothing.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public, once all is there and verified.")
    ] = False,
    gated: Annotated[Literal["auto", "manual"] | None, typer.Option(help="Let readers ask for access.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag the release, for example v1.0.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to publish to, instead of main.")] = None,
    pull_request: Annotated[
        bool, typer.Option("--pr", help="Leave the release as a pull request that a person merges.")
    ] = False,
    read_back: Annotated[
        bool, typer.Option("--read-back", help="Download the weights again to verify them, not only the rest.")
    ] = False,
    require: Annotated[
        list[str] | None, typer.Option(help="Refuse unless this check has passed.", metavar="CHECK")
    ] = None,
    remove_others: Annotated[
        bool, typer.Option("--remove-others", help="Remove files that people added to the repository.")
    ] = False,
    replace_template: Annotated[
        bool, typer.Option("--replace-template", help="Publish another chat template than the one trained with.")
    ] = False,
    iteration: Annotated[
        int | None, typer.Option(help="Publish this iteration, on a branch of its own.", metavar="N")
    ] = None,
    each_iteration: Annotated[
        bool, typer.Option("--each-iteration", help="Publish the earlier iterations too, each on a branch of its own.")
    ] = False,
    sign_key: Annotated[
        Path | None, typer.Option(help="Sign with this private key (PEM, elliptic curve).", metavar="FILE")
    ] = None,
    sign_certificate: Annotated[
        Path | None, typer.Option(help="Sign with the key and this certificate of it.", metavar="FILE")
    ] = None,
    sign_chain: Annotated[list[Path] | None, typer.Option(help="The certificates above it.", metavar="FILE")] = None,
    sign_sigstore: Annotated[
        bool, typer.Option("--sign-sigstore", help="Sign with the identity of this CI job, by Sigstore.")
    ] = False,
) -> None:
    """Assemble the bundle with template, card and manifest, check it, and push it to the Hub."""
    from kto_release import release as stage
    from kto_release.recipe_file import load_recipe
    from kto_release.release.options import Options
    from kto_release.release.signing import sign_with
    from kto_release.run import Run

    options = Options(
        public=public,
        gated=gated,
        tag=tag,
        revision=revision,
        pull_request=pull_request,
        read_back=read_back,
        require=tuple(require or []),
        replace_template=replace_template,
        remove_others=remove_others,
        iteration=iteration,
        each_iteration=each_iteration,
        sign=sign_with(sign_key, sign_certificate, sign_chain or [], sigstore=sign_sigstore),
    )
    stage.publish(Run.open(load_recipe(recipe, overrides or []), runs), dry_run=dry_run, options=options)


@app.command()
def verify(
    where: Annotated[str, typer.Argument(help="A folder, or a repository on the Hub.", metavar="REPO_OR_DIR")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Compute the scores again from the released judgements.")
    ] = False,
    lc_data: Annotated[
        Path | None, typer.Option(help="AlpacaEval's df_gamed.csv, for --rescore without the Hub.", metavar="FILE")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The maker's public key (PEM): is the signature theirs?", metavar="FILE")
    ] = None,
    certificate_chain: Annotated[
        list[Path] | None, typer.Option(help="Certificates that you trust to vouch for the signer.", metavar="FILE")
    ] = None,
    identity: Annotated[str | None, typer.Option(help="The signer's Sigstore identity; with --issuer.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Who vouches for that identity, a URL.")] = None,
) -> None:
    """Check a release that you received: manifest, hashes, signature, template, and the card against the records."""
    from kto_release import release as stage
    from kto_release.release.signing import trust_in

    trust = trust_in(key, certificate_chain or [], identity, issuer)
    stage.verify(where, revision=revision, rescore=rescore, lc_data=lc_data, trust=trust)


@app.command("import")
def import_(
    words: Annotated[
        list[str],
        typer.Argument(help="Where the export is from (--guess names it), and its files.", metavar="SOURCE FILES..."),
    ],
    *,
    out: Annotated[Path | None, typer.Option(help="Write the rows here, a .jsonl file.", metavar="FILE")] = None,
    guess: Annotated[bool, typer.Option("--guess", help="Only name the source of each file.")] = False,
    score: Annotated[str | None, typer.Option(help="The score, metric or question to take.", metavar="NAME")] = None,
    desirable: Annotated[
        str | None, typer.Option(help="Values that are desirable: '>=4', or 'good|great'.", metavar="RULE")
    ] = None,
    undesirable: Annotated[
        str | None, typer.Option(help="Values that are undesirable: '<=2'; the rest is neutral.", metavar="RULE")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only answers of models of this name.", metavar="REGEX")] = None,
    since: Annotated[str | None, typer.Option(help="Only ratings since this date.", metavar="DATE")] = None,
    by: Annotated[Literal["human", "judge", "any"], typer.Option(help="Whose ratings to take.")] = "human",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="What a column is: prompt, completion, left, right.", metavar="WHAT=COLUMN"),
    ] = None,
    join: Annotated[
        str, typer.Option(help="With openai-log: the id that log and ratings have in common.", metavar="KEY")
    ] = "id",
    bad_rows: Annotated[Literal["error", "skip"], typer.Option(help="Refuse or count unreadable records.")] = "error",
    redact: Annotated[bool, typer.Option("--redact", help="Take out names, addresses and numbers of people.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
) -> None:
    """Turn thumbs, scores and corrections that another tool exported into rows to train on."""
    from kto_release.feedback.importers.command import guess_source, import_feedback, options_of

    if guess:
        guess_source(words)
        return
    options = options_of(score, desirable, undesirable, model, since, by, columns or [], join)
    import_feedback(words, out, options, force=force, skip_bad=bad_rows == "skip", redact=redact)


@app.command()
def feedback(
    words: Annotated[
        list[Path],
        typer.Argument(help="A recipe, or files of feedback.", metavar="RECIPE|FILES...", show_default=False),
    ],
    *,
    overrides: Overrides = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --html.")] = False,
) -> None:
    """Show what is in feedback before training: counts, what predicts the label, repeats, private texts, overlaps."""
    from kto_release.feedback.report import report

    report(words, overrides or [], html, force=force)


@app.command()
def rows(
    run: Annotated[Path, typer.Argument(help="A run directory: runs/NAME.", metavar="RUN", show_default=False)],
    *,
    html: Annotated[Path | None, typer.Option(help="Write the rows as a page.", metavar="FILE")] = None,
    out: Annotated[Path | None, typer.Option(help="Write every row as JSON lines.", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of --html and --out.")] = False,
) -> None:
    """Show each row's gain in log-ratio, those that training moved the wrong way first, with users' comments."""
    from kto_release.train.rows import show_rows

    show_rows(run, html=html, out=out, force=force)


@app.command()
def demo(
    runs: Runs = Path("runs"),
    prepare: Annotated[bool, typer.Option("--prepare", help="Only fetch the small model that the demo uses.")] = False,
) -> None:
    """Run the quickstart recipe through all three commands, in minutes on two CPU cores."""
    from kto_release import demo as stage

    stage.demo(runs, prepare_only=prepare)


def main() -> None:
    """Entry point of the console script: the one place that catches our errors.

    Exit codes: 1 for an error of ours, 2 for a wrong command line (typer's own), 130 for Ctrl-C.
    """
    try:
        app()
    except KtoReleaseError as error:
        if "--debug" in sys.argv[1:]:
            raise
        from kto_release import console

        console.fail(str(error))
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: that is no error, but Python would report one at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
