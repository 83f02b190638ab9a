"""Where a model's files are: a local folder, the Hub or its cache, or the demo's prepared copy.

The one place that turns `model.base` of a recipe into a folder, so training, evaluation and release see the same files.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.digests import weight_files, weights_digest
from kto_release.errors import ModelError
from kto_release.loading import FAILURES, first_line
from kto_release.records import ModelFacts

LEGAL_PATTERNS = [
    "LICEN[CS]E*",
    "COPYING*",
    "COPYRIGHT*",
    "NOTICE*",
    "US*_POLICY*",
    "ACCEPTABLE_USE*",
    "PROHIBITED_USE*",
]
"""Texts that go along with whatever is made of a model."""
WEIGHT_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md", *LEGAL_PATTERNS]
"""What is fetched of a model's repository: never pickles, never other frameworks' weights."""

TWICE = ["consolidated*"]
"""The same weights once more, as Mistral's own code reads them."""


class LocalModel(NamedTuple):
    """A model whose files are here."""

    path: Path
    name: str
    """Hub id, or the folder's name: no path of this machine."""
    hub_id: str | None
    """The Hub id; for a local folder the one that its card names as its own base, if it is a copy of it."""
    revision: str | None
    """Commit on the Hub, where the files came from there."""


def cache_folder() -> Path:
    """Where prepared models are kept: $KTO_RELEASE_CACHE, else kto-release under the user's cache folder."""
    chosen = os.environ.get("KTO_RELEASE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kto-release"


def prepared_folder(hub_id: str) -> Path:
    """Where `kto-release demo` keeps its own copy of a Hub model."""
    return cache_folder() / "models" / hub_id.replace("/", "--")


def locate(base: str, revision: str | None = None, *, config_only: bool = False) -> LocalModel:
    """The files of `base`: a folder, or a Hub id (fetched if need be; `config_only` leaves the weights there).

    Raises `ModelError` where there is no such model, or the folder holds none.
    """
    folder = Path(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{base!r} is a folder without a model", expected="config.json, *.safetensors and tokenizer files"
            )
        return LocalModel(folder, folder.name, None, None)
    if folder.is_absolute() or base.startswith(".") or base.count("/") > 1:
        raise ModelError(f"no such model: {base!r}", expected="an existing folder, or a Hub id such as org/name")
    prepared = prepared_folder(base)
    if revision is None and (prepared / "config.json").is_file():
        return LocalModel(prepared, base, base, None)
    return _from_hub(base, revision, config_only=config_only)


def _from_hub(base: str, revision: str | None, *, config_only: bool) -> LocalModel:
    # Slow to import, and most commands find their models here.
    from huggingface_hub import snapshot_download

    from kto_release.hub import READ_FAILURES, explain_read

    patterns = [p for p in WEIGHT_PATTERNS if not (config_only and p == "*.safetensors")]
    try:
        path = Path(snapshot_download(base, revision=revision, allow_patterns=patterns, ignore_patterns=TWICE))
    except READ_FAILURES as error:
        problem, todo, refused = explain_read(error, "model", base, revision)
        if refused:
            raise ModelError(problem, expected="an existing folder, or a Hub id such as org/name", todo=todo) from None
        raise ModelError(
            f"{base!r} is no folder here and not in the cache: {problem}",
            todo=f"{todo}; or give model.base a local folder",
        ) from None
    return LocalModel(path, base, base, path.name)


def load_tokenizer(model: LocalModel, *, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer. Raises `ModelError` where it can't be loaded."""
    try:
        return _tokenizer_class(model.path).from_pretrained(model.path, trust_remote_code=trust_remote_code)
    except FAILURES as error:
        raise ModelError(
            f"the tokenizer of {model.name!r} can't be loaded: {first_line(error)}",
            expected="tokenizer.json and tokenizer_config.json beside the weights",
        ) from None


def _tokenizer_class(folder: Path) -> Any:
    """What reads the tokenizer in a folder: transformers' choice, or the class that the folder states.

    Where there is a SentencePiece model and no tokenizer.json, transformers 5.19 takes a class of its own for Mistral's
    family, and forgets the space before the first word: other ids than those of the model's makers.
    """
    import transformers

    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        try:
            stated = json.loads((folder / "tokenizer_config.json").read_bytes()).get("tokenizer_class")
        except (OSError, ValueError, AttributeError):
            stated = None
        found = getattr(transformers, stated, None) if isinstance(stated, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedTokenizerBase):
            return found
    return transformers.AutoTokenizer


class Stored(NamedTuple):
    """What a folder's safetensors hold, read from their headers."""

    dtype: str
    """dtype of most values, in torch's spelling."""
    parameters: int


def stored_weights(folder: Path) -> Stored:
    """Dtype and number of parameters of a model's safetensors. Raises `ModelError` where there are none."""
    from safetensors import SafetensorError, safe_open

    counts: dict[str, int] = {}
    files = weight_files(folder)
    if not files:
        raise ModelError(
            f"{folder.name!r} holds no safetensors",
            expected="weights as *.safetensors; pickled weights are not read, since reading them can run code",
        )
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    part = file.get_slice(name)
                    counts[part.get_dtype()] = counts.get(part.get_dtype(), 0) + math.prod(part.get_shape())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path.name!r} can't be read: {error}", todo="fetch the model again") from None
    most = max(counts, key=lambda name: counts[name])
    names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
    return Stored(names.get(most, most), sum(counts.values()))


def facts(model: LocalModel, name: str, path: str | None = None) -> ModelFacts:
    """What a record says of a model: `name` as the run calls it, `path` relative to the run where the run made it.

    Raises `ModelError` or `RunError` where the folder holds no weights.
    """
    stored = stored_weights(model.path)
    return ModelFacts(
        name=name,
        hub_id=model.hub_id,
        revision=model.revision,
        path=path,
        sha256=weights_digest(model.path),
        dtype=stored.dtype,
        parameters=stored.parameters,
    )
