"""A verdict in words: the letter in any usual dress is read, and what is no verdict is none."""

import pytest

from kto_release.judges.prompt import Letters
from kto_release.judges.words import read_letter

OFFICIAL, AB, ABC, TIE, DIGITS = (
    Letters(),
    Letters("A", "B"),
    Letters("A", "B", "C"),
    Letters("A", "B", "tie"),
    Letters("1", "2"),
)
NAMES = Letters("output_1", "output_2")

READ = [
    ("m", OFFICIAL, "m"),
    ("`M`", OFFICIAL, "M"),
    ("**m**.", OFFICIAL, "m"),
    ('"m"', OFFICIAL, "m"),
    ("m\n```", OFFICIAL, "m"),
    ("Output (m)", OFFICIAL, "m"),
    ("**Output (M)** is the better one.", OFFICIAL, "M"),
    ("The winner is Output (M) because it is accurate.", OFFICIAL, "M"),
    ("I prefer output (m) since it is complete.", OFFICIAL, "m"),
    ("M is better than m", OFFICIAL, "M"),
    ("m\n\nThe output m is more detailed.", OFFICIAL, "m"),
    ("Both have merit. Output (m) is clear. Output (M) is longer.\n\nm", OFFICIAL, "m"),
    ("### Output (m)\ngood\n### Output (M)\nbad\n\n**Better: m**", OFFICIAL, "m"),
    ("Answer: m\n\nExplanation: M is worse as it is short.", OFFICIAL, "m"),
    ('{"better": "m"}', OFFICIAL, "m"),
    ('```json\n{"reasoning": "M is bad", "winner": "m"}\n```', OFFICIAL, "m"),
    ('[{"model": "m", "rank": 2}, {"model": "M", "rank": 1}]', OFFICIAL, "M"),
    ("$\\boxed{\\text{M}}$", OFFICIAL, "M"),
    ("Some text.\n\n[[B]]", AB, "B"),
    ("My final verdict is: [[B>A]]", AB, "B"),
    ("[[A>>B]]", AB, "A"),
    ("[[A=B]]", ABC, "C"),
    ("<answer>A</answer>", AB, "A"),
    ("a", AB, "A"),
    ("Response (a) is the better response", AB, "A"),
    ("A better answer is B", AB, "B"),
    ("I'd pick B.", AB, "B"),
    ("## Verdict\n\nB", AB, "B"),
    ("It is a tie.", TIE, "tie"),
    ("Verdict: Tie", TIE, "tie"),
    ("Response 2 is better.", DIGITS, "2"),
    ("Better: output_1", NAMES, "output_1"),
]


@pytest.mark.parametrize(("text", "letters", "expected"), READ, ids=[text for text, _, _ in READ])
def test_the_letter_is_read_in_any_dress(text: str, letters: Letters, expected: str) -> None:
    assert read_letter(text, letters) == expected


NONE = [
    ("", OFFICIAL),
    ("The second one", OFFICIAL),
    ("I'm not sure", OFFICIAL),
    ("m or M", OFFICIAL),
    ("m\nthen\nM", OFFICIAL),
    ("m is not better.", OFFICIAL),
    ("m is worse than M", OFFICIAL),
    ("Neither m nor M", OFFICIAL),
    ("Output (m):\nnice\n\nOutput (M):\nnot nice\n\nBoth are fine.", OFFICIAL),
    ('{"better": "x"}', OFFICIAL),
    ("The best answer is not A but B", AB),
    ("Say [[A]] if A is better, [[B]] if B is better.", AB),
    ("[[A=B]]", AB),
    ("A lot could be said.", AB),
]


@pytest.mark.parametrize(("text", "letters"), NONE, ids=[text for text, _ in NONE])
def test_what_says_nothing_or_two_things_is_no_verdict(text: str, letters: Letters) -> None:
    assert read_letter(text, letters) is None


def test_an_answer_that_was_cut_is_read_only_where_it_opens_with_its_verdict() -> None:
    """What a verdict would have come to is not known."""
    assert read_letter("m\n\nOutput (m) is", OFFICIAL, cut=True) == "m"
    assert read_letter("Output (m) is better. But then", OFFICIAL, cut=True) is None
    assert read_letter("[[A]]", AB, cut=True) == "A"
    assert read_letter("First, A wins.\n[[A]] would be", AB, cut=True) is None
