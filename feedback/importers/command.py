"""`kto-release import`: name the source, read the export, say what became of every record."""

from pathlib import Path

from kto_release import console
from kto_release.errors import DataError, RecipeError
from kto_release.feedback.importers import SOURCES
from kto_release.feedback.importers.importing import Account, Import, guess
from kto_release.feedback.importers.rating import UNKNOWN, Options
from kto_release.files import write_record

COLUMNS = ("prompt", "completion", "left", "right", "correction")
NAMES = {source.name: source for source in SOURCES}


def import_feedback(
    words: list[str], out: Path | None, options: Options, *, force: bool, skip_bad: bool, redact: bool
) -> None:
    """Import from the source that the first word names the files of the others; `--out` gets the rows.

    Beside the rows stands `OUT.import.json`, the `Account`.
    """
    name, files = words[0], [Path(word).expanduser() for word in words[1:]]
    if name not in NAMES:
        raise RecipeError(
            f"no source {name!r}", expected=", ".join(NAMES), todo="kto-release import --guess FILES names the source"
        )
    if not files:
        raise RecipeError("no files to import", todo=f"kto-release import {name} FILES --out feedback.jsonl")
    if out is None:
        raise RecipeError("no --out", todo="name the file for the rows: --out feedback.jsonl")
    if not out.name.endswith(".jsonl"):
        raise RecipeError(f"--out {str(out)!r} is no .jsonl file", todo=f"--out {out.with_suffix('.jsonl').name}")
    account = Import(NAMES[name], options, skip_bad=skip_bad, redact=redact).run(files, out, force=force)
    write_record(out.with_name(f"{out.name}.import.json"), account)
    _show(account, out)


def options_of(
    score: str | None,
    desirable: str | None,
    undesirable: str | None,
    model: str | None,
    since: str | None,
    by: str,
    columns: list[str],
    join: str,
) -> Options:
    """The options of the command line. Raises `RecipeError` for a column that is not WHAT=COLUMN."""
    pairs = [column.partition("=") for column in columns]
    strange = [what for what, _, name in pairs if what not in COLUMNS or not name]
    if strange:
        raise RecipeError(f"--column {strange[0]!r}", expected=f"WHAT=COLUMN, WHAT one of {', '.join(COLUMNS)}")
    named = {what: name for what, _, name in pairs}
    return Options(score, desirable, undesirable, model, since, by, named, join)


def guess_source(words: list[str]) -> None:
    """Say, for each file, which sources its first record fits."""
    for word in words:
        path = Path(word).expanduser()
        fitting = guess(SOURCES, path)
        if not fitting:
            raise DataError(
                f"{path.name!r} is an export of no known source",
                expected=", ".join(NAMES),
                todo="if its rows have columns for prompt, answer and rating, train on it directly: docs/data.md",
            )
        console.say(f"{path.name}: {' or '.join(fitting)}")


def _show(account: Account, out: Path) -> None:
    lines: list[tuple[str, int]] = [("records read", account.records)]
    if account.more_verdicts:
        lines.append(("further verdicts in them", account.more_verdicts))
    lines += [(f"left out: {reason}", -count) for reason, count in account.left_out.items()]
    lines.append((f"rows written ({account.desirable} desirable, {account.undesirable} undesirable)", account.rows))
    console.table(f"{account.source}: {', '.join(account.files)}", ["", "number"], lines)
    if account.models:
        shown = [
            f"{count} of {model or 'a model that the export does not name'}" for model, count in account.models.items()
        ]
        more = f" and {len(shown) - 5} more models" if len(shown) > 5 else ""
        console.say(f"answers: {', '.join(shown[:5])}{more}")
    if account.by.get(UNKNOWN):
        console.warn(f"{account.by[UNKNOWN]} ratings do not say who gave them: judges' can't be told from people's")
    if account.follow_ups is not None:
        console.warn(
            f"this export holds no earlier turns: {account.follow_ups} of {account.rows} questions look like follow-ups"
        )
    if not account.undesirable or not account.desirable:
        kind = "desirable" if account.desirable else "undesirable"
        console.warn(f"all rows are {kind}: KTO learns most from both kinds")
    if account.users and account.salt_is_random:
        console.say(
            f"{account.users} users, hashed with a salt of this import; $KTO_RELEASE_SALT makes it stay the same"
        )
    console.say(f"written: {out} and {out.name}.import.json")
