"""The bundle: the folder that will be published, complete and checked before any request.

It is built from an allow-list, so what was not thought of is not in it: no pickle, no optimizer state, no log.
It is built beside the old one and takes its place in one step, last.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kto_release import __version__
from kto_release.errors import ReleaseError, RunError
from kto_release.files import write_atomically
from kto_release.lineage import LINEAGE, continued, read_lineage
from kto_release.models import LocalModel, load_tokenizer
from kto_release.published import Published, published
from kto_release.recipe import GenerationSection, Recipe
from kto_release.records import IterationRecord, WeightFacts
from kto_release.release.allowed import ALLOWED, PICTURE, TOKENIZER_FILES, is_legal, refused
from kto_release.release.card import write_card
from kto_release.release.chat_template import published_template, replay, write_template
from kto_release.release.checklist import Checklist, checklist, write_checklist
from kto_release.release.checks.item import Found, Subject
from kto_release.release.described import describe
from kto_release.release.facts import CardFacts, collect_facts, descent, sampled_with
from kto_release.release.manifest import MANIFEST, SIGNATURE, Manifest, list_files
from kto_release.release.material import Material
from kto_release.release.options import Options, branch, wished
from kto_release.release.readers import for_all_readers, generation_config, read_object
from kto_release.release.reload import check_reload
from kto_release.release.rescore import released, write_jsonl
from kto_release.release.scan import scan
from kto_release.release.signing import sign, write_public_key
from kto_release.run import Run
from kto_release.templates import eos_ids
from kto_release.templates.moment import reads_clock, set_moment
from kto_release.templates.saving import keep_vocabulary


class Bundle(NamedTuple):
    """A finished bundle."""

    path: Path
    manifest: Manifest
    checklist: Checklist
    subject: Subject
    """What the checklist was made of."""


def build(run: Run, material: Material, options: Options) -> Bundle:
    """Build the bundle of the material's last iteration. Raises `ReleaseError`, `RunError`, `ModelError`."""
    from huggingface_hub import constants  # slow to import

    last, base = material.iterations[-1], material.base
    if base is None:
        raise ReleaseError("the initial model is not here", todo="mend model.base, or connect to the Hub")
    source = run.path / (last.model.path or "")
    made = _published(run, material, base)
    weights = made.weights
    done = material.folder / "bundle"
    with _in_place_of(done) as folder:
        for name in weights.files:
            _link(made.folder / name, folder / name)
        sampling = sampled_with(run.recipe, last, [record for _, record in material.evaluations])
        _write_configuration(made.folder, base.path, folder, sampling)
        _write_template(run, source, last, folder, base.path, replace=options.replace_template)
        _write_records(run, material, folder)
        if options.sign is not None:
            write_public_key(folder, options.sign)
        facts = collect_facts(
            run.recipe,
            material.iterations,
            [record for _, record in material.evaluations],
            base=base,
            weights=weights,
            kept=made.kept,
            model=folder,
            revision=branch(options),
            endpoint=str(constants.ENDPOINT),
            pictures=[f"pictures/{path.name}" for path in sorted((folder / "pictures").glob("*.png"))],
        )
        write_card(folder, facts, results=run.recipe.release.eval_results)
        _write_lineage(run, material, folder, source)
        _copy_legal(base, folder, facts)
        reload = check_reload(run, last, made, folder, source=source)
        if reload is not None:
            write_atomically(folder / "records" / "reload.json", _json(reload.model_dump(mode="json")))
        _refuse_unlisted(folder)
        found = Found(
            conversations=replay(folder),
            reload=reload,
            secrets=[str(finding) for finding in scan(folder)],
            signed=options.sign is not None,
        )
        subject = Subject(facts, wished(run.recipe.release, options), folder, found)
        checks = checklist(subject)
        write_checklist(folder, checks)
        write_checklist(material.folder, checks)
        manifest = _manifest(run, material, weights, folder)
        write_atomically(folder / MANIFEST, manifest.spelled())
        if options.sign is not None:
            sign(folder, options.sign, earlier=done / SIGNATURE)
    return Bundle(done, manifest, checks, subject._replace(bundle=done))


def _published(run: Run, material: Material, base: LocalModel) -> Published:
    """The weights as published. Raises `RunError` where the initial model is another one than the run's."""
    made, recorded = published(run, material.iterations[-1]), material.iterations[0].parent.sha256
    if made.weights.base_sha256 != recorded:
        raise RunError(
            f"the initial model {base.name!r} is not the one that the run was made with "
            f"(digest {made.weights.base_sha256[:12]}…)",
            expected=f"digest {recorded[:12]}…, as recorded",
            todo="restore it, or name its commit in model.revision",
        )
    return made


@contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well, and vanishes when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(".bundle-*"):  # of a killed run; the run's lock is ours
        shutil.rmtree(left)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".bundle-"))
    scratch.chmod(0o755)
    try:
        yield scratch
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".bundle-old-"))
        if folder.exists():
            folder.replace(old / "bundle")
        scratch.replace(folder)
        shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _link(source: Path, target: Path) -> None:
    """The same bytes at a second place: a hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_configuration(source: Path, base: Path, folder: Path, sampling: GenerationSection) -> None:
    """config.json, generation_config.json and the tokenizer, whose configuration `write_template` cleans."""
    config = _read_json(source / "config.json")
    write_atomically(folder / "config.json", _json(for_all_readers(config, read_object(base / "config.json"))))
    path = source / "generation_config.json"
    tokens = {**config, **(_read_json(path) if path.is_file() else {})}
    write_atomically(folder / path.name, _json(generation_config(tokens, sampling)))
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    keep_vocabulary(base, folder)


def _write_template(
    run: Run, source: Path, record: IterationRecord, folder: Path, base: Path, *, replace: bool
) -> None:
    """Prove the chat template, and write it where every reader looks for it."""
    local = LocalModel(source, record.model.name, None, None)
    tokenizer = load_tokenizer(local, trust_remote_code=run.recipe.model.trust_remote_code)
    choice = published_template(run.recipe.release.template, tokenizer, record, replace=replace)
    prints_date = reads_clock(choice.template.source)
    set_moment(tokenizer, (record.template_moment or run.moment()) if prints_date else None)
    write_template(folder, tokenizer, choice.template, eos_ids(folder), base)


def _write_lineage(run: Run, material: Material, folder: Path, source: Path) -> None:
    """What whoever trains on from this release inherits: as on the card, with the questions' hashes."""
    lineage = descent(run.recipe, material.iterations, material.base)
    trained = read_lineage(source)
    if trained is not None:
        asked = {key: getattr(trained.rounds[-1], key) for key in ("questions", "questions_known")}
        lineage = continued(
            lineage.model_copy(update={"rounds": lineage.rounds[:-1]}), lineage.rounds[-1].model_copy(update=asked)
        )
    write_atomically(folder / LINEAGE, _json(lineage.model_dump(mode="json")))


def _write_records(run: Run, material: Material, folder: Path) -> None:
    write_atomically(
        folder / "recipe.yaml", yaml.safe_dump(portable(run.recipe), sort_keys=False, allow_unicode=True, width=120)
    )
    for record in material.iterations:
        write_atomically(
            folder / "records" / f"iteration-{record.iteration}.json", _json(record.model_dump(mode="json"))
        )
    for where, evaluation in material.evaluations:
        name = _name_of(run, where)
        write_atomically(folder / f"records/{name}.json", _json(evaluation.model_dump(mode="json")))
        write_atomically(folder / f"judgements/{name}.jsonl", write_jsonl(released(where, evaluation)))
    picture = run.path / Path(PICTURE).name  # what training draws; other pictures are not of its making
    if picture.is_file():
        (folder / PICTURE).parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, folder / PICTURE)


def _name_of(run: Run, where: Path) -> str:
    """What an evaluation is called in the release: eval/a/b/c becomes eval--a--b--c."""
    return "--".join(where.relative_to(run.path).parts)


def _copy_legal(base: LocalModel, folder: Path, facts: CardFacts) -> None:
    """The base model's notices and use policies, and its licence text where the release has that licence.

    Under their own names: the card's metadata, and the texts themselves, refer to them.
    """
    own = [source.key for source in facts.license.sources if source.part == "base model"]
    same = own == [facts.license.license_name if facts.license.id == "other" else facts.license.id]
    for path in sorted(path for path in base.path.iterdir() if path.is_file() and is_legal(path.name)):
        if same or not path.name.startswith(("LICENSE", "LICENCE", "COPYING")):
            shutil.copyfile(path, folder / path.name)


def portable(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without this machine's folders: an absolute path becomes its last part."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    plain: dict[str, Any] = walk(recipe.dump())
    return plain


def _refuse_unlisted(folder: Path) -> None:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        why = refused(name) if path.is_file() else None
        if why is not None:
            raise ReleaseError(f"{name!r} may not be published: it is {why}", expected=", ".join(ALLOWED))


def _manifest(run: Run, material: Material, weights: WeightFacts, folder: Path) -> Manifest:
    return describe(
        run.recipe.name,
        run.recipe.release.repo_id,
        f"kto-release {__version__}",
        material.iterations,
        [(_name_of(run, where), record) for where, record in material.evaluations],
        weights,
        list_files(folder),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} can't be read: {error}", todo="restore the file, or train again") from None
    if not isinstance(plain, dict):
        raise RunError(f"{str(path)!r} is no JSON object", todo="restore the file, or train again")
    return plain


def _json(plain: dict[str, Any]) -> str:
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
