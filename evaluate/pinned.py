"""The answers that another run was compared with, as a reference: its scores and new ones stand on one scale.

They are read from the judged rows of its evaluations, under the name and the digest that these have on record.
"""

from pathlib import Path

from kto_release.digests import sha256_of
from kto_release.errors import DataError
from kto_release.evaluate.compare import evaluations_in, load
from kto_release.evaluate.instructions import InstructionSet, Outputs


def pinned_reference(folder: Path, instructions: InstructionSet) -> Outputs:
    """What the evaluations in a folder (a run, a model's part of it, a judge's) were compared with.

    Of several those of these very instructions are meant, if there are any. Raises `DataError` where there is none, or
    they were compared with different answers.
    """
    found = evaluations_in(folder)
    if not found:
        raise DataError(
            f"eval.reference: {str(folder)!r} holds no evaluation",
            expected="a run that was evaluated, or a file of outputs",
            todo="kto-release eval that run first, or name another",
        )
    same = [item for item in found if item[1].instructions_sha256 == instructions.sha256] or found
    known = {record.reference_sha256: f"{record.reference} {record.reference_sha256[:8]}" for _, record in same}
    if len(known) > 1:
        raise DataError(
            f"eval.reference: the evaluations in {str(folder)!r} were compared with different answers: "
            f"{', '.join(sorted(known.values()))}",
            expected="one reference",
            todo="name a judge's folder: runs/NAME/eval/MODEL/INSTRUCTIONS/JUDGE",
        )
    where, record = max(same, key=lambda item: item[1].n_total)
    rows = load(where, record).rows
    texts = {row.instruction: row.reference for row in rows if row.sample == 0}
    one_each = len(texts) == len(rows) and not record.partial
    sha256 = record.reference_sha256 if one_each else sha256_of([[text, answer] for text, answer in texts.items()])
    return Outputs(record.reference, texts, sha256)
