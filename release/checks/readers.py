"""Checks that other programs read the release as it was made."""

from kto_release.release.checks.item import USERS, Items, Outcome, Subject, failed, not_measured, passed
from kto_release.release.readers import OLDEST, beyond_embedding, disagreements, embedding_rows

ITEMS = Items()


@ITEMS.item("reads-everywhere", f"{USERS}: another model for older readers, without a word")
def _reads_everywhere(subject: Subject) -> Outcome:
    wrong = [*disagreements(subject.bundle)]
    if wrong:
        return failed("; ".join(wrong))
    return passed(f"old and new keys say the same; read with transformers since {OLDEST['transformers']} in our tests")


@ITEMS.item("tokens-within-embedding", f"{USERS}: a padding token that no row of the embedding belongs to")
def _tokens_within_embedding(subject: Subject) -> Outcome:
    if embedding_rows(subject.bundle) is None:
        return not_measured("config.json has no vocab_size")
    wrong = beyond_embedding(subject.bundle)
    return failed(wrong) if wrong else passed("every token of the tokenizer has its row")
