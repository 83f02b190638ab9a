"""No token ever stands in an output or a file: the whole road with canaries in the environment."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from fake_hub import FakeHub
from feedback_files import write_recipe
from judge_server import judge_server
from releases import TOKEN, sha256_by_path

JUDGE_KEY = "sk-canaryKeyThatMustAppearNowhere0000"
INSTRUCTIONS = [
    {"dataset": "small", "instruction": f"Question {n}: what is the capital?", "output": "Paris.", "generator": "us"}
    for n in range(4)
]


@pytest.mark.slow
def test_no_token_in_anything_that_any_command_writes(
    hub: FakeHub, cli: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """train, eval with a paid judge, publish and verify, with --debug, succeeding and failing: no canary anywhere.

    The server that the tokens are for does get them, which shows that they were used.
    """
    (tmp_path / "instructions.json").write_text(json.dumps(INSTRUCTIONS))
    printed = []
    with judge_server() as judge:
        recipe = write_recipe(
            tmp_path,
            tiny_model,
            **{
                "eval.prompts": "instructions.json",
                "eval.reference": "initial",
                "eval.generation": {"max_tokens": 8},
                "eval.engine": {"kind": "transformers"},
                "eval.judge": {"kind": "openai", "model": "judge", "base_url": judge.url},
                "release.repo_id": "tester/small",
                "release.license": "mit",
                "release.data_license": "mit",
            },
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "OPENAI_API_KEY": JUDGE_KEY,
            "HF_HUB_DISABLE_XET": "1",
            "HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "home" / "hf"),
        }

        def command(*arguments: str, code: int = 0) -> None:
            done = subprocess.run(
                [cli, "--debug", *arguments],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=500,
                check=False,
            )
            printed.append(done.stdout + done.stderr)
            assert done.returncode == code, printed[-1][-3000:]

        command("train", recipe.name)
        command("eval", recipe.name)
        hub.fail("POST", "/commit/", 500, times=1)
        command("publish", recipe.name, "--tag", "v1.0", code=1)
        command("publish", recipe.name, "--tag", "v1.0")
        command("verify", "tester/small", "--rescore")
        hub.users.clear()  # now the token is refused
        command("publish", recipe.name, code=1)
        command("verify", "tester/small", "--revision", "v1.0", code=1)
        assert judge.keys.keys() == {f"Bearer {JUDGE_KEY}"}
    assert hub.repos["tester/small"].files("main") == sha256_by_path(tmp_path / "runs" / "small" / "release" / "bundle")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    for canary in (TOKEN, JUDGE_KEY):
        assert [path for path in files if canary.encode() in path.read_bytes()] == []
        assert [text for text in printed if canary in text] == []
