"""Languages and near-duplicates of answers, by libraries that are an extra: without them they are not looked at."""

import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

from kto_release.feedback.report.measures import Item

LIKE = 0.8
"""Jaccard likeness of word triples from which answers to one prompt or to several are near-duplicates."""
PERMUTATIONS = 64
FEW_WORDS = 8
"""Shorter answers ("Yes, it is.") are alike without being copies."""
FEW_LETTERS = 20
"""Shorter texts have no language that could be told."""
LETTERS = 1000
"""Of a text that are looked at for its language."""
EXTRA = "pip install 'kto-release[report]'"


def languages(items: Sequence[Item]) -> dict[str, int] | None:
    """Answers by ISO 639 code of their language, the most frequent first; "" where they are too short to tell.

    None where py3langid is not installed.
    """
    if find_spec("py3langid") is None:
        return None
    import py3langid

    found: Counter[str] = Counter()
    for item in items:
        text = item.feedback.completion[:LETTERS]
        found[py3langid.classify(text)[0] if len(re.findall(r"[^\W\d_]", text)) >= FEW_LETTERS else ""] += 1
    return dict(found.most_common())


def near_duplicates(items: Sequence[Item]) -> int | None:
    """Answers that are like an earlier, different one: MinHash of word triples, 64 permutations, likeness from 0.8.

    An estimate: a pair of exactly that likeness is found about every other time. None where datasketch is not
    installed.
    """
    if find_spec("datasketch") is None:
        return None
    from datasketch import MinHash, MinHashLSH

    texts = [words for words in dict.fromkeys(_words(item) for item in items) if len(words) >= FEW_WORDS]
    index = MinHashLSH(threshold=LIKE, num_perm=PERMUTATIONS)
    count = 0
    for number, words in enumerate(texts):
        made = MinHash(num_perm=PERMUTATIONS)
        made.update_batch([" ".join(words[at : at + 3]).encode("utf-8", "replace") for at in range(len(words) - 2)])
        count += bool(index.query(made))
        index.insert(number, made)
    return count


def _words(item: Item) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", item.feedback.completion.lower()))
