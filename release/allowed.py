"""What a release may hold, by name: the list binds whoever makes one and whoever receives it."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kto_release.lineage import LINEAGE
from kto_release.release.manifest import MANIFEST, SIGNATURE, UNLISTED
from kto_release.release.model_index import EVAL_RESULTS
from kto_release.release.replay import PUBLISHED, TEST, TRAINING
from kto_release.release.signing import PUBLIC_KEY

README = "README.md"
CHECKLIST = "checklist.json"
RECIPE = "recipe.yaml"
FACTS = "records/card.json"
RELOAD = "records/reload.json"
PICTURE = "pictures/curves.png"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
)
ALLOWED = (
    README,
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
    PUBLISHED,
    TRAINING,
    TEST,
    PUBLIC_KEY,
    CHECKLIST,
    RECIPE,
    FACTS,
    RELOAD,
    LINEAGE,
    PICTURE,
    EVAL_RESULTS,
    MANIFEST,
)
"""Names of which a release has at most one each. A signature is added to the finished bundle."""
LEGAL = re.compile(
    r"(?:LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|USE_POLICY|USAGE_POLICY|ACCEPTABLE_USE_POLICY|PROHIBITED_USE_POLICY)"
    r"(?:[-_.][A-Za-z0-9-]{1,40}){0,3}"
)
"""Licence texts, notices and use policies of the base model, under the names that they have there."""
LEGAL_SUFFIXES = ("", ".txt", ".md")
NUMBERED = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors|records/iteration-[0-9]{1,4}\.json")
EVALUATION = re.compile(r"records/eval--[^/]+\.json|judgements/eval--[^/]+\.jsonl")

CODE = "a kind of file that can hold code, which no release has"
SAFE_SUFFIXES = {
    ".safetensors",
    ".json",
    ".jsonl",
    ".jinja",
    ".md",
    ".yaml",
    ".png",
    ".txt",
    ".model",
    ".pem",
    ".sig",
    "",
}

BESIDE = (".gguf", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".pdf", ".md", ".txt")
"""Kinds of files that people put beside a release and that no reader of it loads as a part of it."""
OF_THE_CLIENT = re.compile(
    r"\.cache/huggingface/(?:[^/]+/)*(?:\.gitignore|CACHEDIR\.TAG|[^/]+\.(?:json|metadata|lock|incomplete))"
)
"""What the Hub's client notes in a folder that it downloads to."""


def is_legal(name: str) -> bool:
    """Whether a name is one of a licence text, a notice or a use policy."""
    return LEGAL.fullmatch(name) is not None and PurePosixPath(name).suffix.lower() in {*LEGAL_SUFFIXES, *_dotted(name)}


def _dotted(name: str) -> set[str]:
    """The suffix of a name whose last dot is no kind of file, as in LICENSE-2.0."""
    suffix = PurePosixPath(name).suffix
    return {suffix.lower()} if suffix[1:].isdigit() else set()


def refused(name: str) -> str | None:
    """Why no release holds a file of this name; None where one may."""
    if PurePosixPath(name).suffix not in SAFE_SUFFIXES and not is_legal(name):
        return CODE
    if name in ALLOWED or is_legal(name) or NUMBERED.fullmatch(name):
        return None
    if EVALUATION.fullmatch(name) and name.isprintable():
        return None
    return "no file that a release has"


def is_beside(path: Path, name: str) -> bool:
    """Whether a file that is no part of a release may lie beside it: nothing that a reader would take for a part."""
    return path.is_file() and not path.is_symlink() and may_lie_beside(name)


def may_lie_beside(name: str) -> bool:
    """The same by its name alone."""
    looks_like = name.casefold() in {known.casefold() for known in (*ALLOWED, SIGNATURE)}
    own_folder = name.startswith((".", "records/", "judgements/", "pictures/"))
    if looks_like or own_folder or not (name.isascii() and name.isprintable()):
        return False
    return PurePosixPath(name).suffix.lower() in BESIDE or is_legal(name)


def strangers(folder: Path, listed: set[str], *, downloaded: bool) -> Iterator[Path]:
    """Everything in a folder that no manifest lists, but what a clone or a download puts there by itself.

    `downloaded`: the folder is a repository as the Hub has it; nothing else has put anything there.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if stat.S_ISDIR(path.lstat().st_mode):
            continue
        own = not downloaded and (name.parts[:1] == (".git",) or OF_THE_CLIENT.fullmatch(name.as_posix()) is not None)
        if not own and name.as_posix() not in listed | UNLISTED:
            yield path
