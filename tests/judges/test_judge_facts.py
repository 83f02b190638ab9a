"""What a record says of its judge."""

import pytest

from kto_release.judges.official import official_judge_facts
from kto_release.records import JudgeFacts


@pytest.mark.parametrize(("kind", "known"), [("recorded", False), ("local", True), ("openai", True)])
def test_a_record_made_before_orders_were_recorded(kind: str, known: bool) -> None:
    """Where a record does not say whether orders are known, they are, unless the judgements were recorded ones."""
    plain = {**official_judge_facts().model_dump(exclude={"orders_known"}), "kind": kind}
    assert JudgeFacts.model_validate(plain).orders_known is known
