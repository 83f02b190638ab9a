"""Against TRL's KTOTrainer: its loss on its own batch, and the order in which it would have trained pairs."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from feedback_files import pair, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train
from kto_release.train.batches import all_batches
from kto_release.train.logprobs import branch_logprobs, teach_trees
from kto_release.train.loss import Loss, reference_point
from kto_release.train.tokens import Tokens
from kto_release.train.tree import Branch, Tree, lay

pytestmark = pytest.mark.slow

BETA, DESIRABLE, UNDESIRABLE = 0.3, 1.3, 0.7


@pytest.fixture(scope="module")
def theirs(tiny_model, tmp_path_factory):
    """TRL's trainer on eight pairs, with a policy that has moved away from its reference."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    arguments = KTOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        per_device_train_batch_size=8,
        gradient_checkpointing=False,
        beta=BETA,
        desirable_weight=DESIRABLE,
        undesirable_weight=UNDESIRABLE,
        bf16=False,
        use_cpu=True,
        report_to="none",
    )
    data = Dataset.from_list([pair(number) for number in range(8)])
    return KTOTrainer(model=model, ref_model=reference, args=arguments, processing_class=tokenizer, train_dataset=data)


def side(batch, row, prefix):
    """Prompt and completion of a row of TRL's batch, without its padding."""
    ids, mask = batch[f"{prefix}input_ids"][row], batch[f"{prefix}attention_mask"][row].bool()
    answers = batch[f"{prefix}completion_mask"][row].bool()
    return ids[mask & ~answers].numpy().astype(np.int32), ids[answers].numpy().astype(np.int32)


def logps(model, sides):
    """log pi of each completion, by prompt trees."""
    teach_trees(model)
    trees = [Tree(prompt, [Branch(completion, slot)]) for slot, (prompt, completion) in enumerate(sides)]
    with torch.no_grad():
        return branch_logprobs(model, lay(trees))


@pytest.mark.parametrize("labels", ["chosen and rejected", "chosen", "rejected"])
def test_with_trls_batch_and_partners_our_loss_is_trls(theirs, tiny_model, labels):
    """Equal to 1e-6, with weights and beta that are no defaults, and a policy far from its reference.

    Fails if the sign of the undesirable loss, the place of z or a weight is changed, or if z is not cut at 0.
    """
    data = theirs.train_dataset
    wanted = {"chosen": [True], "rejected": [False]}.get(labels, [True, False])
    rows = [row for row in data if row["label"] in wanted][::2][:6]
    batch = theirs.data_collator(rows)
    with torch.no_grad():
        expected = float(theirs.compute_loss(theirs.model, batch))
    size = len(rows)
    own, partners = ([side(batch, row, prefix) for row in range(size)] for prefix in ("", "KL_"))
    policy = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    policy.load_state_dict(theirs.model.state_dict())
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ratios, kl = (logps(policy, sides) - logps(reference, sides) for sides in (own, partners))
    assert ratios.abs().max() > 1
    desirable = torch.as_tensor(batch["label"], dtype=torch.bool)
    losses = Loss(BETA, DESIRABLE, UNDESIRABLE).of(ratios, desirable, reference_point(float(kl.mean())))
    assert float(losses.mean()) == pytest.approx(expected, abs=1e-6)


def test_trl_would_train_pairs_in_blocks_of_one_label_and_we_do_not(theirs, tiny_model, tmp_path):
    """TRL makes rows of pairs by label and takes them in order; each of our global batches holds both halves."""
    assert theirs.train_dataset["label"][:] == [True] * 8 + [False] * 8
    run = Run.open(load_recipe(write_recipe(tmp_path, tiny_model, **{"data.partitions": ["one"]})), tmp_path / "runs")
    train(run)
    tokens = Tokens(run.iteration(1) / "tokens")
    batches = all_batches(tokens, run.recipe.train, 1)
    assert [sorted(tokens.desirable_F[batch.feedback_B].tolist()) for batch in batches] == [
        [False] * (len(batch.feedback_B) // 2) + [True] * (len(batch.feedback_B) // 2) for batch in batches
    ]
