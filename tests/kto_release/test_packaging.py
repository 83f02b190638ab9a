"""What is installed: the packages, and what they carry."""

import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("templates", "feedback", "engines", "judges", "train", "evaluate", "release", "model_cards", "recipes")
PYPROJECT = ROOT / "pyproject.toml"


def declared():
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_with_code_is_a_listed_package():
    """setuptools can't find packages in this layout, so the list is compared with the tree."""
    found = {
        "kto_release" if path.parent.parts == ("kto_release",) else ".".join(("kto_release", *path.parent.parts))
        for path in (p.relative_to(ROOT) for stage in ("kto_release", *STAGES) for p in (ROOT / stage).rglob("*.py"))
    }
    listed = set(declared()["packages"])
    assert found <= listed
    assert all((ROOT / folder).is_dir() for folder in declared()["package-dir"].values())


def test_mapping_names_the_folders_of_the_packages():
    """kto_release.train is the folder train, and so on for each."""
    for package, folder in declared()["package-dir"].items():
        expected = "kto_release" if package == "kto_release" else package.removeprefix("kto_release.").replace(".", "/")
        assert folder == expected


@pytest.mark.parametrize("stage", STAGES)
def test_stages_import_below_kto_release(stage):
    """Each stage is kto_release.<stage>, from where this run expects it to be installed."""
    module = importlib.import_module(f"kto_release.{stage}")
    expected = os.environ.get("KTO_RELEASE_EXPECTED")
    if expected:
        assert Path(module.__file__).is_relative_to(expected)


def test_no_stage_is_a_top_level_package(tmp_path):
    """From another folder, `train`, `evaluate` and `release` of ours can't be imported, so they hide nobody's."""
    program = (
        "import importlib.util, pathlib, sys\n"
        f"root = pathlib.Path({str(ROOT)!r})\n"
        f"for name in {STAGES!r}:\n"
        "    spec = importlib.util.find_spec(name)\n"
        "    assert spec is None or not spec.origin or not pathlib.Path(spec.origin).is_relative_to(root), name\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what the repository tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "No module named pip" in result.stderr:
        pytest.skip("pip is not installed beside this Python")
    assert result.returncode == 0, result.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_code_templates_cards_and_recipes(wheel):
    """Everything is under kto_release/, and every file of ours that is needed at run time is in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"kto_release", wheel.name.split("-py3")[0] + ".dist-info"}
    needed = [
        path.relative_to(ROOT)
        for stage in STAGES
        for path in (ROOT / stage).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {f"kto_release/{path.as_posix()}" for path in needed} <= names
    assert "kto_release/py.typed" in names


def test_the_wheel_alone_runs(wheel, tmp_path):
    """Unpacked elsewhere and without the repository, the command answers and reads its own recipe."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import pathlib, kto_release, kto_release.recipes\n"
        "from kto_release.recipe_file import load_recipe\n"
        "folder = pathlib.Path(kto_release.recipes.__file__).parent\n"
        "print(load_recipe(folder / 'quickstart.yaml').name, folder.parent.parent.name)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout == "quickstart site\n"
