"""How judging went: what answered, what it cost, what it did not read, and the doubts that follow for the score."""

from collections import Counter
from collections.abc import Iterator, Sequence

from kto_release.judges.asking import Judgements
from kto_release.judges.judge import Verdict
from kto_release.records import JudgeFacts, JudgingFacts, ServedFacts

CHARACTERS_PER_TOKEN = 10.0
"""No tokenizer reads that many characters of prose or code as one token on average: fewer tokens are a cut prompt."""
LONG = 2000
"""Characters from which a prompt's tokens are held against it; shorter ones vary too much."""
SUDDEN = 1.3
"""Prompts that all stop at the same number of tokens, with so many times more characters for each than shorter ones."""
ALIKE = 3
"""So many prompts of different lengths at the highest number of tokens are no chance."""
UNDECIDED = 5
"""So many verdicts that are all one half: nothing was compared."""
MANY_UNREADABLE = 0.1


def account(judgements: Judgements, judge: JudgeFacts, trial: str | None = None) -> JudgingFacts:
    """The account of all judgements behind a score; `trial` is what the judge did with the small questions."""
    verdicts = [verdict for found in judgements.verdicts for verdict in found.values()]
    prices = [verdict.price for verdict in verdicts if verdict.price is not None]
    answers = sum(judge.votes for _ in verdicts) + judgements.unreadable
    unreadable = judgements.unreadable / answers if answers else None
    served = _served(verdicts)
    cut = cut_prompts(verdicts)
    return JudgingFacts(
        served=served,
        unreadable=unreadable,
        cut_prompts=cut,
        price=sum(prices) if prices else None,
        trial=trial,
        doubts=[*_doubts(verdicts, served, cut, unreadable)],
    )


def cut_prompts(verdicts: Sequence[Verdict]) -> int:
    """Questions of which the endpoint counts fewer tokens than they can have.

    A server that cuts to its context says so in its count of tokens alone: it is too small for the characters that were
    sent, or it is one and the same for many prompts of different lengths.
    """
    sizes = [
        (verdict.characters, verdict.tokens[0])
        for verdict in verdicts
        if verdict.characters and verdict.tokens and verdict.tokens[0]
    ]
    impossible = {n for n, (sent, read) in enumerate(sizes) if sent >= LONG and sent > CHARACTERS_PER_TOKEN * read}
    most = max((read for _, read in sizes), default=0)
    below = sorted(sent / read for sent, read in sizes if read < most)
    if below:
        usual = below[len(below) // 2]
        full = {n for n, (sent, read) in enumerate(sizes) if read == most and sent > SUDDEN * usual * read}
        if len({sizes[n][0] for n in full}) >= ALIKE:
            impossible |= full
    return len(impossible)


def _served(verdicts: Sequence[Verdict]) -> list[ServedFacts]:
    counted = Counter(
        tuple(verdict.served.get(name) for name in ("model", "fingerprint", "provider"))
        for verdict in verdicts
        if verdict.served
    )
    return [
        ServedFacts(model=model, fingerprint=fingerprint, provider=provider, judgements=count)
        for (model, fingerprint, provider), count in counted.most_common()
    ]


def _doubts(
    verdicts: Sequence[Verdict], served: Sequence[ServedFacts], cut: int, unreadable: float | None
) -> Iterator[str]:
    for what, name in (
        ("model", "the answering model"),
        ("fingerprint", "its fingerprint"),
        ("provider", "the provider"),
    ):
        counts = Counter[str]()
        for one in served:
            if getattr(one, what):
                counts[getattr(one, what)] += one.judgements
        if len(counts) > 1:
            shown = ", ".join(f"{value} ({count})" for value, count in counts.most_common(4))
            yield f"the judge changed within the run, {name}: {shown}"
    if cut:
        yield (
            f"the endpoint read fewer tokens of {cut} of {len(verdicts)} questions than they can have: "
            "it may cut prompts to its context"
        )
    if len(verdicts) >= UNDECIDED and all(verdict.first == 0.5 for verdict in verdicts):
        yield f"the judge calls every one of {len(verdicts)} pairs a draw"
    if unreadable is not None and unreadable > MANY_UNREADABLE:
        yield f"{unreadable:.0%} of the judge's answers held no verdict"
