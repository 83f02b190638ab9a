"""Feedback from a Hub data set, read by the real `datasets` client from a Hub on loopback."""

import json
import os
import subprocess
import sys

import pytest
from dataset_hub import COMMIT, DatasetHub

pytestmark = pytest.mark.slow

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

PROGRAM_OF_ONE = PROGRAM.replace(
    'print(json.dumps([tried("owner/feedback", "train_iteration_1"), tried("owner/feedback", "nope"), tried("owner/none", "x")]))',
    'print(json.dumps(tried("owner/feedback", "train_iteration_1")))',
)
TWO_CONFIGURATIONS = b"""---
configs:
- config_name: short
  data_files: [{split: train_iteration_1, path: one.jsonl}]
- config_name: long
  data_files: [{split: train_iteration_1, path: one.jsonl}]
---
"""


def read_one(hub, folder, program=PROGRAM_OF_ONE):
    with hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder)}
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
    return json.loads(result.stdout.splitlines()[-1])


def test_a_file_on_the_hub_with_a_broken_line(tmp_path):
    """The library does not tell the row: what to do to see it is said."""
    hub = DatasetHub([{"prompt": "Hi", "completion": "Hello.", "label": True}])
    hub.files["one.jsonl"] += b'{"prompt": \n'
    found = read_one(hub, tmp_path)
    assert found.startswith("the files of the data set 'owner/feedback' can't be read: ")
    assert found.endswith("give data.source the local files: then the row is named too")


def test_a_configuration_is_chosen_by_its_name(tmp_path):
    """Where a set has several, they are named, and data.config takes one."""
    hub = DatasetHub([{"prompt": "Hi", "completion": "Hello.", "label": True}])
    hub.files["README.md"] = TWO_CONFIGURATIONS
    found = read_one(hub, tmp_path)
    assert "['short', 'long']" in found
    assert found.endswith("to do: choose one of these configurations with data.config")
    hub = DatasetHub([{"prompt": "Hi", "completion": "Hello.", "label": True}])
    hub.files["README.md"] = TWO_CONFIGURATIONS
    chosen = read_one(
        hub, tmp_path, PROGRAM_OF_ONE.replace("partitions=[split])", 'partitions=[split], config="long")')
    )
    assert chosen["rows"] == [["train_iteration_1, row 1", [[["user", "Hi"]], "Hello.", True]]]


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
    assert name.startswith("the Hub knows no data set 'owner/none', or keeps it private")
