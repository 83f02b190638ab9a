"""Attention over whole packs against attention part by part, in fp64, through PyTorch's own operator."""

import pytest
import torch
from feedback_files import write_recipe
from packs import SIZES, pack_of, wide
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM
from varlen_on_cpu import VarlenOnCPU

from kto_release.files import read_jsonl
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train
from kto_release.train.attention import tree_attention
from kto_release.train.logprobs import branch_logprobs, teach_trees
from kto_release.train.varlen import exists_for, fits, key_plan, take_whole_packs
from kto_release.train.varlen_proof import whole_pack_fault

CPU = torch.device("cpu")


def test_a_plan_by_hand():
    """A prompt of two tokens with branches of two inputs and of none, and a prompt of one with one of one.

    Sequences: prompt (0, 1); branch (2, 3) with its prompt's keys before its own; prompt (4); branch (5).
    """
    plan = key_plan(pack_of([(2, [3, 1]), (1, [2])]).spans)
    assert plan.query_ends_N.tolist() == [0, 2, 4, 5, 6]
    assert plan.key_ends_N.tolist() == [0, 2, 6, 7, 9]
    assert plan.source_K.tolist() == [0, 1, 0, 1, 2, 3, 4, 4, 5]
    assert plan.copies_TR.tolist() == [[0, 2], [1, 3], [4, 9], [5, 9], [6, 7], [8, 9]]
    assert (plan.longest_query, plan.longest_key) == (2, 4)


@pytest.mark.parametrize("window", [None, 1, 3, 64])
@pytest.mark.parametrize("sizes", SIZES)
def test_one_call_gives_what_the_parts_give(sizes, window):
    """Outputs and gradients to 1e-12, with two heads of keys for four of queries.

    Fails if a branch does not see its whole prompt, if it sees a sibling, if the window is one too wide, or if a prompt's
    keys get the gradient of one branch only.
    """
    pack = pack_of(sizes)
    rng = torch.Generator().manual_seed(0)
    parts = [
        torch.randn(1, heads, len(pack.ids_T), 16, dtype=torch.float64, generator=rng, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    weight = torch.randn(1, len(pack.ids_T), 4, 16, dtype=torch.float64, generator=rng)
    found = []
    with VarlenOnCPU() as kernel:
        for plan in (None, key_plan(pack.spans)):
            out, _ = tree_attention(
                torch.nn.Identity(), *parts, None, spans=pack.spans, sliding_window=window, key_plan=plan, scaling=0.3
            )
            found.append((out, *torch.autograd.grad((out * weight).sum(), parts)))
    assert kernel.calls == 1
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def taught(kind):
    torch.manual_seed(0)
    size = {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 512, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1,
        "pad_token_id": 2,
    }  # fmt: skip
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**size, num_key_value_heads=2, sliding_window=20, head_dim=8))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**size))
    model = model.double()
    teach_trees(model)
    return model


def logps_and_gradient(model, pack):
    model.zero_grad()
    logps_N = branch_logprobs(model, pack)
    (logps_N * torch.linspace(-1, 2, len(logps_N))).sum().backward()
    return logps_N.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["neox", "mistral"])
def test_a_model_gives_the_same_by_whole_packs(kind, checkpointing):
    """Log-probabilities and gradients, one call for each layer and pass, with layers computed again too.

    To 1e-9 in fp64; Mistral's norms round through fp32.
    """
    pack = pack_of(SIZES[1])
    model = taught(kind).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    expected = logps_and_gradient(model, pack)
    take_whole_packs(model, True)
    with VarlenOnCPU() as kernel:
        found = logps_and_gradient(model, pack)
    assert kernel.calls == (4 if checkpointing else 2)
    tolerance = 1e-9 if kind == "neox" else 1e-4
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_what_flash_attention_has_no_kernel_for_goes_part_by_part():
    """Heads of another size for values, heads of 12 or 264, and dropout."""
    heads = torch.zeros(1, 2, 3, 64)
    assert fits(heads, heads, 0.0)
    assert not fits(heads, heads, 0.1)
    assert not fits(heads, torch.zeros(1, 2, 3, 32), 0.0)
    assert not any(fits(odd, odd, 0.0) for odd in (torch.zeros(1, 2, 3, 12), torch.zeros(1, 2, 3, 264)))
    meta = torch.zeros(1, 2, 3, 64, device="meta")
    assert not fits(meta, meta, 0.0)
    assert fits(meta, meta.bfloat16(), 0.0)


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, None), (0.5, "log-probabilities that differ by"), (None, "NotImplementedError")]
)
def test_whole_packs_are_taken_only_where_they_agree(shift, expected):
    """A kernel that is wrong, or not there, is not used; the gradients of the trial are dropped."""
    model, pack = taught("neox"), pack_of(SIZES[0])

    def prove():
        return whole_pack_fault(model, pack, torch.Tensor.backward, lambda value: value, "fp32")

    if shift is None:
        fault = prove()
    else:
        with VarlenOnCPU(shift):
            fault = prove()
    assert (fault is None) if expected is None else expected in fault
    assert all(parameter.grad is None for parameter in model.parameters())
    with VarlenOnCPU() as kernel, torch.no_grad():
        branch_logprobs(model, pack)
    assert kernel.calls == (2 if expected is None else 0)


def test_a_wrong_gradient_is_found(monkeypatch):
    """A backward that takes another number of copies gives the right log-probabilities, and is not used."""
    with VarlenOnCPU() as kernel:
        right = kernel.backward
        kernel.library._destroy()
        monkeypatch.setattr(kernel, "backward", lambda *a, **k: tuple(2 * g for g in right(*a, **k)))
        with kernel:
            fault = whole_pack_fault(taught("neox"), pack_of(SIZES[0]), torch.Tensor.backward, lambda v: v, "fp32")
    assert "a gradient that differs by" in fault


def test_without_a_kernel_nothing_is_tried():
    """On a CPU, unless one was registered."""
    assert not exists_for(CPU)
    with VarlenOnCPU():
        assert exists_for(CPU)
    assert not exists_for(CPU)


@pytest.mark.slow
def test_a_run_by_whole_packs_is_a_run_by_parts(tmp_path, tiny_model):
    """The same losses and norms at every step, and the kernel was used for every pack: the trial, the reference, the
    steps. Fails if the trial uses up the random numbers of LoRA's dropout."""
    lora = {"rank": 4, "dropout": 0.1}
    rows = []
    for name in ("parts", "whole"):
        (tmp_path / name).mkdir()
        changes = {"data.partitions": ["one"], "train.lora": lora, "train.probe_prompts": 0}
        run = Run.open(
            load_recipe(write_recipe(tmp_path / name, wide(tmp_path, tiny_model), **changes)), tmp_path / name
        )
        if name == "parts":
            train(run)
        else:
            with VarlenOnCPU() as kernel:
                train(run)
        rows.append(read_jsonl(run.iteration(1) / "metrics.jsonl"))
    assert kernel.calls > 2 * 2 * len(rows[1])
    for left, right in zip(*rows, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], abs=1e-5)
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4, abs=1e-5)
