"""The held-out feedback's prompts as questions: what people really asked, and no iteration was trained on."""

from kto_release.errors import DataError
from kto_release.evaluate.questions import Instruction, Messages, from_messages
from kto_release.feedback.partitions import find_partitions, read
from kto_release.recipe import DataSection

HELD_OUT_PROMPTS = "held_out"


def held_out_questions(data: DataSection) -> list[Instruction]:
    """Each held-out prompt once, in the order of the feedback. Raises `DataError` where nothing is held out."""
    partition = find_partitions(data).held_out
    if partition is None:
        raise DataError(
            "eval.prompts is 'held_out', and the recipe holds no feedback out",
            expected="data.held_out: a split, a file, or a share such as 0.1",
            todo="set data.held_out, or name a file of questions in eval.prompts",
        )
    found: dict[str, Instruction] = {}
    tools = 0
    for row in read(partition, data):
        for feedback in row.feedback:
            tools += bool(feedback.tools)
            messages: Messages = feedback.messages
            one = from_messages(messages, "")
            found.setdefault(one.text, one)
    if tools:
        raise DataError(
            f"{tools} of the held-out prompts offer tools, which answers can't be judged with",
            expected="prompts of messages alone",
            todo="name a file of questions in eval.prompts",
        )
    return list(found.values())
