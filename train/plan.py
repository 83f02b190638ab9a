"""What an iteration will do, written before it starts: plan.json."""

from pydantic import BaseModel

PLAN = "plan.json"


class Plan(BaseModel):
    """`iteration-N/plan.json`."""

    iteration: int
    inputs: dict[str, str]
    """sha256 of each file of feedback, or the revision of its Hub data set."""
    tokens_sha256: str
    parent_sha256: str
    """Digest of the weights that the iteration starts from."""
    reference_sha256: str
    steps: int
    desirable_weight: float
    undesirable_weight: float
    precision: str
