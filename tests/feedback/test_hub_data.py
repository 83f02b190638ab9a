"""Feedback from a Hub data set, read by the real `datasets` client from a Hub on loopback."""

import json
import os
import subprocess
import sys

from dataset_hub import COMMIT, DatasetHub

PROGRAM = """
import json
from kto_release.errors import DataError
from kto_release.recipe import DataSection
from kto_release.feedback.partitions import find_partitions, input_digests, read

def tried(source, split):
    data = DataSection(source=source, partitions=[split])
    try:
        (part,) = find_partitions(data).iterations
        rows = [[row.where, feedback[:3]] for row in read(part, data) for feedback in row.feedback]
        return {"rows": rows, "licenses": part.licenses, "inputs": input_digests(part)}
    except DataError as error:
        return str(error)

print(json.dumps([tried("owner/feedback", "train_iteration_1"), tried("owner/feedback", "nope"), tried("owner/none", "x")]))
"""


def test_a_split_in_the_snorkel_layout(tmp_path):
    """Rows, licence and commit of a split are read; a wrong split and a wrong name each say what is wrong."""
    user = {"role": "user", "content": "Hi"}
    row = {
        "prompt": "Hi",
        "prompt_id": "1",
        "chosen": [user, {"role": "assistant", "content": "Hello."}],
        "rejected": [user, {"role": "assistant", "content": "It depends."}],
    }
    with DatasetHub([row]) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)}
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
    good, split, name = json.loads(result.stdout.splitlines()[-1])
    assert good == {
        "rows": [
            ["train_iteration_1, row 1", [[["user", "Hi"]], "Hello.", True]],
            ["train_iteration_1, row 1", [[["user", "Hi"]], "It depends.", False]],
        ],
        "licenses": {"owner/feedback": "apache-2.0"},
        "inputs": {"owner/feedback:train_iteration_1": f"revision {COMMIT}"},
    }
    assert split == (
        "'owner/feedback': Unknown split \"nope\". Should be one of ['train_iteration_1'].\n"
        "  to do: mend data.partitions or data.held_out"
    )
    assert name.startswith("no such data set: 'owner/none' is no file here, and the Hub knows none of that name")
