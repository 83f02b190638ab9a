"""Several votes on one question as one verdict."""

from collections.abc import Sequence

from kto_release.judges.judge import Verdict


def together(votes: Sequence[Verdict]) -> Verdict:
    """Several votes on one question as one verdict: their share, and what all of them took."""
    tokens = [vote.tokens for vote in votes if vote.tokens]
    raw = [vote.raw or {} for vote in votes]
    served = [vote.served for vote in votes if vote.served]
    return votes[0]._replace(
        first=sum(vote.first for vote in votes) / len(votes),
        raw={name: [item for one in raw for item in one.get(name, [])] for name in ("letters", "answers")},
        tokens=(sum(read for read, _ in tokens), sum(wrote for _, wrote in tokens))
        if len(tokens) == len(votes)
        else None,
        price=None if any(vote.price is None for vote in votes) else sum(vote.price or 0.0 for vote in votes),
        seconds=round(sum(vote.seconds or 0.0 for vote in votes), 3),
        tries=sum(vote.tries for vote in votes),
        unreadable=sum(vote.unreadable for vote in votes),
        characters=sum(vote.characters or 0 for vote in votes),
        served={key: " and ".join(dict.fromkeys(one[key] for one in served if key in one)) for key in served[0]}
        if served
        else None,
    )
