"""The engine where vLLM is not installed: transformers' models under a decoding loop of our own.

transformers' `generate` draws a whole batch from one random stream, so an answer would depend on its company; here each
row has its own. A row that ends leaves the batch at once and is handed over. Shapes: B rows, T tokens, V vocabulary.

On a CPU the weights are rounded to the wanted dtype and computed with in float32: bfloat16 arithmetic is several times
slower there (measured on two AVX2 cores with SmolLM2-135M: 21 against 58 tokens/s), and not a bit more faithful.
"""

import gc
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from kto_release import console
from kto_release.engines import Completion, EngineKind, Model, Request, Sampling, version_of
from kto_release.errors import EngineError
from kto_release.loading import load_whole

BATCH = 32
"""Rows that are decoded together."""

LIKELIEST = 1024
"""A nucleus is first looked for among so many tokens; the whole vocabulary is sorted only where that is too few."""


class TransformersEngine:
    """A causal language model on one device."""

    kind: EngineKind = "transformers"

    def __init__(self, model: Model, *, longest: int) -> None:
        self.version, self.longest = version_of("transformers"), longest
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.hardware = f"1 x {torch.cuda.get_device_name()}" if self.device == "cuda" else None
        self._model: Any = _load(model, self.device)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See `Engine`. Prompts of like length share a batch, so little of it is padding."""
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index].ids))
        for start in range(0, len(order), BATCH):
            yield from self._decode({index: requests[index] for index in order[start : start + BATCH]}, sampling)

    def _decode(self, requests: dict[int, Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        rows = [_Row(index, request, self._room(request, sampling)) for index, request in requests.items()]
        ids_BT, mask_BT = _padded_left([row.request.ids for row in rows], self.device)
        cache = self._new_cache()
        while rows:
            logits_BV = self._forward(ids_BT, mask_BT, cache)
            tokens_B = sample(logits_BV, [row.generator for row in rows], sampling)
            going = []
            for place, (row, token) in enumerate(zip(rows, tokens_B, strict=True)):
                finish = row.take(token, sampling.stop_ids)
                if finish is None:
                    going.append(place)
                else:
                    yield row.index, Completion(row.ids, finish)
            if len(going) < len(rows):
                keep = torch.tensor(going, device=self.device, dtype=torch.long)
                rows = [rows[place] for place in going]
                mask_BT = mask_BT[keep]
                if rows:
                    cache.batch_select_indices(keep)
            ids_BT = torch.tensor([[row.ids[-1]] for row in rows], device=self.device, dtype=torch.long)
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)

    def _room(self, request: Request, sampling: Sampling) -> int:
        room = self.longest - len(request.ids)
        if room < 1:
            raise EngineError(
                f"a prompt of {len(request.ids)} tokens leaves no room for an answer",
                expected=f"fewer than {self.longest} tokens: the model's context, or engine.max_model_len",
            )
        return min(room, sampling.max_tokens)

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    @torch.inference_mode()
    def _forward(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits (float32, on the CPU) of the token after the last; `mask_BT` also covers what the cache holds."""
        positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        try:
            result = self._model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        except torch.OutOfMemoryError as error:
            raise EngineError(f"the device has no memory left: {error}", todo="lower generation.max_tokens") from None
        logits: torch.Tensor = result.logits[:, -1].float().cpu()
        return logits

    def next_logprobs(self, prompts: Sequence[list[int]], tokens: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        """See `Engine`. What a prompt shares with the one before is not computed again."""
        cache, known = self._new_cache(), list[int]()
        for index, ids in enumerate(prompts):
            if len(ids) > self.longest:
                raise EngineError(f"a prompt of {len(ids)} tokens", expected=f"at most {self.longest}")
            shared = min(_common_prefix(known, ids), len(ids) - 1)
            if shared and _can_crop(cache):
                if len(known) > shared:
                    cache.crop(shared - len(known))
            else:
                cache, shared = self._new_cache(), 0
            ids_BT = torch.tensor([ids[shared:]], device=self.device)
            mask_BT = torch.ones(1, len(ids), device=self.device, dtype=torch.long)
            logps_V = torch.log_softmax(self._forward(ids_BT, mask_BT, cache)[0], dim=-1)
            known = ids
            yield index, [float(logps_V[token]) for token in tokens]

    def close(self) -> None:
        """See `Engine`."""
        self._model = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


class _Row:
    """One answer in the making."""

    def __init__(self, index: int, request: Request, room: int) -> None:
        self.index, self.request, self.room = index, request, room
        self.ids: list[int] = []
        self.generator = torch.Generator().manual_seed(request.seed)

    def take(self, token: int, stop_ids: tuple[int, ...]) -> Any:
        """Add a token; how the answer ended, or None while it goes on."""
        if token in stop_ids:
            return "stop"
        self.ids.append(token)
        return "length" if len(self.ids) == self.room else None


class _Nucleus(NamedTuple):
    """The tokens that may be drawn, likeliest first, and the running sums of their probabilities (float64)."""

    tokens_BK: torch.Tensor
    sums_BK: torch.Tensor


def sample(logits_BV: torch.Tensor, generators: Sequence[torch.Generator], sampling: Sampling) -> list[int]:
    """One token for each row, by its own random stream: temperature, then top-k, then top-p.

    The nucleus is the fewest tokens whose probability reaches top_p (Holtzman et al., arXiv:1904.09751).
    """
    if sampling.temperature == 0:
        return [int(token) for token in logits_BV.argmax(dim=-1)]
    probabilities_BV = torch.softmax(logits_BV.double() / sampling.temperature, dim=-1)
    nucleus = _nucleus(probabilities_BV, sampling)
    drawn_B1 = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    if sampling.top_k is not None:
        nucleus = _Nucleus(nucleus.tokens_BK, nucleus.sums_BK / nucleus.sums_BK[:, -1:])
    # The first token at which the sum reaches top_p is the last that may be drawn.
    last_B1 = torch.searchsorted(nucleus.sums_BK, torch.full_like(drawn_B1, sampling.top_p))
    last_B1 = last_B1.clamp(max=nucleus.sums_BK.shape[1] - 1)
    drawn_B1 *= nucleus.sums_BK.gather(1, last_B1)
    place_B1 = torch.minimum(torch.searchsorted(nucleus.sums_BK, drawn_B1, right=True), last_B1)
    return [int(token) for token in nucleus.tokens_BK.gather(1, place_B1)]


def _nucleus(probabilities_BV: torch.Tensor, sampling: Sampling) -> _Nucleus:
    size = probabilities_BV.shape[1]
    for count in (sampling.top_k,) if sampling.top_k else (LIKELIEST, size):
        top = probabilities_BV.topk(min(count, size), dim=-1)
        sums_BK = top.values.cumsum(dim=-1)
        if bool((sums_BK[:, -1] >= sampling.top_p).all()):
            break
    return _Nucleus(top.indices, sums_BK)


def _padded_left(prompts: Sequence[list[int]], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both int64 of shape (B, T)."""
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    return ids_BT, mask_BT


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _can_crop(cache: Any) -> bool:
    """Whether every layer keeps all that it saw: only then can the tail be cut off (a sliding window forgets)."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _load(model: Model, device: str) -> Any:
    from safetensors import SafetensorError

    console.quiet_libraries()
    try:
        loaded = load_whole(model.folder, dtype=getattr(torch, model.dtype), trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EngineError(
            f"transformers can't load {model.folder.name!r}: {str(error).splitlines()[0]}",
            expected="a causal language model: config.json and *.safetensors",
        ) from None
    loaded = loaded.float() if device == "cpu" else loaded.to(device)
    return loaded.eval()
