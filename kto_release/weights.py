"""The published weights: rounded to the published dtype, sharded to at most 5 GB, compared with what they must be.

Training keeps fp32; only what is published is rounded, stochastically where the recipe does not say otherwise
(`rounding`): at KTO's learning rates an update is often smaller than half a step of bfloat16, and rounding to the
nearest would take the training back. Tensor by tensor, with never more than one shard in memory.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kto_release.digests import file_sha256, sha256_of, weight_files, weights_digest
from kto_release.errors import ReleaseError
from kto_release.files import read_record, write_atomically, write_record
from kto_release.records import WeightFacts
from kto_release.rounding import stochastic

MAX_SHARD_BYTES = 5_000_000_000
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""Names of PyTorch, and those of the safetensors format."""
SIZES = {"BF16": 2, "F16": 2, "F32": 4}
Rounding = Literal["stochastic", "nearest"]


class Tensors:
    """All tensors of a folder's safetensors files, read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self.where: dict[str, Any] = {}
        for path in weight_files(folder):
            try:
                opened = stack.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise ReleaseError(
                    f"{str(path)!r} can't be read: {error}", expected="a whole safetensors file", todo="train again"
                ) from None
            for name in opened.keys():  # noqa: SIM118  safe_open is no mapping
                self.where[name] = opened
        if not self.where:
            raise ReleaseError(f"no weights in {str(folder)!r}", expected="*.safetensors")

    def shape(self, name: str) -> list[int]:
        """The tensor's shape, without reading its values."""
        return list(self.where[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The tensor's stored dtype, in the format's names."""
        return str(self.where[name].get_slice(name).get_dtype())

    def get(self, name: str) -> Any:
        """The tensor, on the CPU, in its stored dtype."""
        return self.where[name].get_tensor(name)


class Plan(NamedTuple):
    """Which tensors go where, before any is read."""

    dtypes: dict[str, str]
    """Published dtype by tensor, in the safetensors format's names."""
    shards: dict[str, list[str]]
    """Tensor names by file name."""
    total_bytes: int
    """Of all tensors."""


def prepare_weights(
    source: Path,
    base: Path,
    folder: Path,
    dtype: str,
    *,
    tied: bool,
    rounding: Rounding = "stochastic",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> WeightFacts:
    """Write the published form of `source` to `folder` and return what was found; a finished one is reused.

    `source` holds the trained weights in fp32, `base` the initial model. `dtype` is bfloat16, float16, float32, or
    "base" for each tensor's dtype in the base. `tied`: the configuration ties the output layer to the embeddings. The
    seed of stochastic rounding is the digest of `source`: the same weights give the same bytes.
    Raises `ReleaseError` where a file can't be read or written.
    """
    record = folder / "record.json"
    old = read_record(record, WeightFacts) if record.exists() else None
    digests = weights_digest(source), weights_digest(base)
    if (
        old is not None
        and (old.source_sha256, old.base_sha256) == digests
        and _is_as_recorded(folder, old, dtype, rounding)
    ):
        return old
    record.unlink(missing_ok=True)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        trained, initial = Tensors(source, stack), Tensors(base, stack)
        plan = _plan(trained, initial, dtype, max_shard_bytes)
        tally = _write_shards(trained, initial, plan, folder, rounding, seed=digests[0])
        facts = _facts(trained, initial, plan, tally, folder, digests, dtype, tied=tied)
        is_rounded = any(plan.dtypes[name] != trained.dtype(name) for name in trained.where)
        facts = facts.model_copy(update={"rounding": rounding if is_rounded else "none"})
    write_record(record, facts)
    return facts


def _is_as_recorded(folder: Path, facts: WeightFacts, dtype: str, rounding: Rounding) -> bool:
    """Whether a finished conversion can be reused: of the wished dtype, and every byte in place."""
    if dtype != facts.requested or facts.rounding not in ("none", rounding):
        return False
    paths = {folder / name: digest for name, digest in facts.files.items()}
    return all(path.is_file() and file_sha256(path) == digest for path, digest in paths.items())


def _plan(trained: Tensors, initial: Tensors, dtype: str, max_shard_bytes: int) -> Plan:
    from huggingface_hub import split_state_dict_into_shards_factory

    dtypes = {}
    for name in trained.where:
        stored = trained.dtype(name)
        wished = initial.dtype(name) if dtype == "base" and name in initial.where else DTYPES.get(dtype, stored)
        # Whole numbers (buffers) have nothing to round.
        dtypes[name] = wished if stored in SIZES and wished in SIZES else stored
    split = split_state_dict_into_shards_factory(
        {name: (name,) for name in trained.where},  # not the bare name: text is skipped as bitsandbytes' own
        get_storage_size=lambda only: SIZES.get(dtypes[only[0]], 8) * math.prod(trained.shape(only[0])),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    return Plan(dtypes, dict(split.filename_to_tensors), int(split.metadata["total_size"]))


class Tally:
    """Sums over all tensors written so far."""

    def __init__(self) -> None:
        self.values = self.trained = self.changed = 0
        self.not_finite: list[str] = []
        self.empty: list[str] = []

    def add(self, name: str, trained: Any, published: Any, initial: Any | None) -> None:
        """Count one tensor; `initial` is None where the base has none of that name and shape."""
        import torch

        self.values += published.numel()
        finite = bool(torch.isfinite(published).all())
        if not finite:
            self.not_finite.append(name)
        if published.numel() == 0 or (not published.any() and (initial is None or bool(initial.any()))):
            self.empty.append(name)
        if initial is None or not finite or not published.is_floating_point():
            return
        trained, rounded, initial = trained.float(), published.float(), initial.float()
        self.trained += int((trained != initial).sum())
        self.changed += int((rounded != initial).sum())


def _write_shards(
    trained: Tensors, initial: Tensors, plan: Plan, folder: Path, rounding: Rounding, *, seed: str
) -> Tally:
    import torch
    from safetensors.torch import save_file

    names = {short: getattr(torch, long) for long, short in DTYPES.items()}
    tally = Tally()
    for file, tensors in plan.shards.items():
        shard = {}
        for name in tensors:
            before = trained.get(name)
            to = names.get(plan.dtypes[name], before.dtype)
            if rounding == "stochastic" and before.dtype == torch.float32 and to != torch.float32:
                after = stochastic(before, to, f"{seed} {name}")
            else:
                after = before.to(to)
            same = name in initial.where and initial.shape(name) == list(before.shape)
            tally.add(name, before, after, initial.get(name) if same else None)
            shard[name] = after.contiguous()
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except OSError as error:
            raise ReleaseError(f"{str(folder / file)!r} can't be written: {error.strerror or error}") from None
        (folder / file).chmod(0o644)  # safetensors writes 0600; a bundle is to be read by others
    if len(plan.shards) > 1:
        _write_index(plan, folder)
    return tally


def _write_index(plan: Plan, folder: Path) -> None:
    weight_map = {name: file for file, tensors in plan.shards.items() for name in tensors}
    index = {"metadata": {"total_size": plan.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    write_atomically(folder / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")


def _facts(
    trained: Tensors,
    initial: Tensors,
    plan: Plan,
    tally: Tally,
    folder: Path,
    digests: tuple[str, str],
    requested: str,
    *,
    tied: bool,
) -> WeightFacts:
    optional = {"lm_head.weight"} if tied else set()
    files = {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors*"))}
    return WeightFacts(
        source_sha256=digests[0],
        base_sha256=digests[1],
        sha256=sha256_of({name: digest for name, digest in files.items() if name.endswith(".safetensors")}),
        requested=requested,
        dtype=_main_dtype(trained, plan),
        files=files,
        bytes=sum((folder / name).stat().st_size for name in files),
        tensors=len(trained.where),
        parameters=tally.values,
        missing=sorted(initial.where.keys() - trained.where.keys() - optional),
        unexpected=sorted(trained.where.keys() - initial.where.keys() - optional),
        wrong_shape=[*_wrong_shapes(trained, initial)],
        not_finite=tally.not_finite,
        empty=tally.empty,
        trained_share=tally.trained / max(tally.values, 1),
        changed_share=tally.changed / max(tally.values, 1),
    )


def _main_dtype(trained: Tensors, plan: Plan) -> str:
    """The dtype of most values."""
    counts: dict[str, int] = {}
    for name, dtype in plan.dtypes.items():
        counts[dtype] = counts.get(dtype, 0) + math.prod(trained.shape(name))
    most = max(counts, key=lambda dtype: counts[dtype])
    return {short: long for long, short in DTYPES.items()}.get(most, most)


def _wrong_shapes(trained: Tensors, initial: Tensors) -> Iterator[str]:
    for name in sorted(trained.where.keys() & initial.where.keys()):
        if trained.shape(name) != initial.shape(name):
            yield f"{name}: {trained.shape(name)}, not {initial.shape(name)}"


def problems(facts: WeightFacts) -> Mapping[str, str]:
    """What is wrong with the weights, by check; empty where nothing is."""
    found = {
        "missing": facts.missing,
        "unexpected": facts.unexpected,
        "shape": facts.wrong_shape,
        "finite": facts.not_finite,
        "empty": facts.empty,
    }
    shown = {check: _some(names) for check, names in found.items() if names}
    if facts.changed_share == 0:
        shown["changed"] = "the published weights are the initial model's: there is nothing to release"
    return shown


def _some(names: list[str]) -> str:
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
