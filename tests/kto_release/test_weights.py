"""Published weights: the rounding, the shards, and what is found wrong with them."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kto_release.digests import weights_digest
from kto_release.errors import ReleaseError
from kto_release.records import WeightFacts
from kto_release.weights import Rounding, prepare_weights, problems

BASE = {
    "a.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
    "b.weight": torch.tensor([1.0, -1.0, 0.5], dtype=torch.bfloat16),
}


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def prepared(
    tmp_path: Path, trained: dict[str, torch.Tensor], dtype: str = "base", rounding: Rounding = "nearest"
) -> WeightFacts:
    base, source = write(tmp_path / "base", BASE), write(tmp_path / "trained", trained)
    return prepare_weights(source, base, tmp_path / "out", dtype, tied=False, rounding=rounding)


def moved(step: float) -> dict[str, torch.Tensor]:
    return {name: tensor.float() + step for name, tensor in BASE.items()}


def test_weights_are_rounded_to_the_base_dtype(tmp_path: Path) -> None:
    """bfloat16 has 8 bits of precision: steps of 2^-7 at 1 to 2. 1 + 0.75 * 2^-7 rounds up to 1 + 2^-7."""
    facts = prepared(tmp_path, moved(0.75 * 2**-7))
    published = load_file(tmp_path / "out" / "model.safetensors")
    assert published["b.weight"].dtype == torch.bfloat16
    assert published["b.weight"][0] == 1 + 2**-7
    assert (facts.dtype, facts.requested, facts.tensors, facts.parameters) == ("bfloat16", "base", 2, 7)


def test_what_is_changed_is_counted_as_published(tmp_path: Path) -> None:
    """An update of 2^-8, to the nearest: at 0.5 and -1 the step below 1 is 2^-8, so exact; the other five go back."""
    facts = prepared(tmp_path, moved(2.0**-8))
    assert (facts.trained_share, facts.changed_share, facts.rounding) == (1.0, 2 / 7, "nearest")


def test_stochastic_rounding_is_seeded_by_the_weights(tmp_path: Path) -> None:
    """The same trained weights give the same bytes; an update of a quarter of a step moves about a quarter of them."""
    base = {"a.weight": torch.ones(100_000, dtype=torch.bfloat16)}
    trained = {"a.weight": torch.full((100_000,), 1 + 2.0**-9)}
    first = write(tmp_path / "base", base), write(tmp_path / "trained", trained)
    made = [prepare_weights(first[1], first[0], tmp_path / name, "base", tied=False) for name in ("one", "two")]
    assert made[0] == made[1]
    assert made[0].rounding == "stochastic"
    assert made[0].changed_share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 100_000))
    values = load_file(tmp_path / "one" / "model.safetensors")["a.weight"].float()
    assert set(values.tolist()) == {1.0, 1 + 2.0**-7}
    other = write(tmp_path / "other", {"a.weight": torch.full((100_000,), 1 + 2.0**-9), "b": torch.ones(1)})
    changed = load_file(_prepared(other, first[0], tmp_path / "three") / "model.safetensors")["a.weight"].float()
    assert not torch.equal(changed, values)


def _prepared(source: Path, base: Path, folder: Path) -> Path:
    prepare_weights(source, base, folder, "base", tied=False)
    return folder


def test_another_rounding_is_made_anew(tmp_path: Path) -> None:
    """What was rounded otherwise than the recipe says now is not used again."""
    base, source = write(tmp_path / "base", BASE), write(tmp_path / "trained", moved(2.0**-9))
    roundings = [
        prepare_weights(source, base, tmp_path / "out", "base", tied=False, rounding=how).rounding
        for how in ("nearest", "stochastic", "nearest")
    ]
    assert roundings == ["nearest", "stochastic", "nearest"]


def test_float32_loses_nothing(tmp_path: Path) -> None:
    """Published in fp32, the trained weights are what is published, to the bit."""
    trained = moved(1e-6)
    facts = prepared(tmp_path, trained, "float32")
    published = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(published[name], trained[name]) for name in trained)
    assert (facts.rounding, facts.changed_share) == ("none", 1.0)


def test_untrained_weights_are_nothing_to_release(tmp_path: Path) -> None:
    """Weights equal to the initial model's, and weights whose whole training was rounded away, are a problem."""
    said = {"changed": "the published weights are the initial model's: there is nothing to release"}
    assert problems(prepared(tmp_path / "still", moved(0.0))) == said
    assert problems(prepared(tmp_path / "lost", moved(2.0**-9))) == said


@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        (lambda t: t.pop("b.weight"), "missing", "b.weight"),
        (lambda t: t.update({"c.weight": torch.ones(1)}), "unexpected", "c.weight"),
        (lambda t: t.update({"b.weight": torch.ones(4)}), "shape", "b.weight: [4], not [3]"),
        (lambda t: t["a.weight"].__setitem__((0, 0), math.nan), "finite", "a.weight"),
        (lambda t: t["a.weight"].__setitem__((0, 0), math.inf), "finite", "a.weight"),
        (lambda t: t.update({"b.weight": torch.zeros(3)}), "empty", "b.weight"),
        (lambda t: t.update({"b.weight": torch.zeros(0)}), "empty", "b.weight"),
    ],
)
def test_damage_is_found(tmp_path: Path, change: object, check: str, text: str) -> None:
    """A tensor that is missing, extra, of another shape, not finite or empty is named."""
    trained = moved(0.25)
    change(trained)  # type: ignore[operator]
    assert problems(prepared(tmp_path, trained))[check] == text


def test_overflow_of_float16_is_found(tmp_path: Path) -> None:
    """A value that is finite in fp32 and beyond float16's largest is an infinity as published."""
    facts = prepared(tmp_path, {name: tensor * 30_000 for name, tensor in moved(0.25).items()}, "float16")
    assert facts.not_finite == ["a.weight"]


def test_a_tied_output_layer_may_be_absent(tmp_path: Path) -> None:
    """Transformers leaves out an output layer that is the embeddings; the base's file may hold it."""
    base = write(tmp_path / "base", {**BASE, "lm_head.weight": torch.ones(2, dtype=torch.bfloat16)})
    source = write(tmp_path / "trained", moved(0.25))
    assert prepare_weights(source, base, tmp_path / "tied", "base", tied=True).missing == []
    assert prepare_weights(source, base, tmp_path / "untied", "base", tied=False).missing == ["lm_head.weight"]


def test_shards_load_as_one_model(tmp_path: Path, tiny_model: Path) -> None:
    """Shards and their index give the same tensors as one file, and none is above the limit."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    model.save_pretrained(tmp_path / "trained")
    out = tmp_path / "out"
    facts = prepare_weights(
        tmp_path / "trained", tiny_model, out, "base", tied=False, rounding="nearest", max_shard_bytes=60_000
    )
    shards = sorted(out.glob("*.safetensors"))
    assert [path.name for path in shards] == [f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)]
    assert all(path.stat().st_size <= 60_000 + 2_000 for path in shards)  # a header comes on top
    assert facts.sha256 == weights_digest(out)
    (out / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    loaded = AutoModelForCausalLM.from_pretrained(out).state_dict()
    expected = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_finished_conversion_is_reused(tmp_path: Path) -> None:
    """The same wish again writes nothing; another dtype, or a byte that changed on disk, makes it anew."""
    facts = prepared(tmp_path, moved(2.0**-9), rounding="stochastic")
    path = tmp_path / "out" / "model.safetensors"
    source, base = tmp_path / "trained", tmp_path / "base"
    before = path.stat().st_mtime_ns
    assert prepare_weights(source, base, tmp_path / "out", "base", tied=False) == facts
    assert path.stat().st_mtime_ns == before
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert prepare_weights(source, base, tmp_path / "out", "base", tied=False) == facts
    assert path.read_bytes() == good
    assert prepare_weights(source, base, tmp_path / "out", "float32", tied=False).dtype == "float32"
    assert prepare_weights(source, base, tmp_path / "out", "base", tied=False).dtype == "bfloat16"


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    """A file that is cut off is an error that names it, not a release without it."""
    base, source = write(tmp_path / "base", BASE), write(tmp_path / "trained", moved(0.25))
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ReleaseError, match=r"trained/model\.safetensors' can't be read"):
        prepare_weights(source, base, tmp_path / "out", "base", tied=False)
    assert not (tmp_path / "out" / "record.json").exists()
