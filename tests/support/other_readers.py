"""Programs that read releases elsewhere, fetched once into the user's cache: transformers 4, llama.cpp's converter."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TRANSFORMERS_4 = ("transformers==4.57.6", "huggingface_hub==0.36.0", "tokenizers==0.22.1", "requests==2.34.2")
LLAMA_CPP = "0.3.36"


def _pip(folder: Path, *arguments: str) -> None:
    """Run pip into a folder that is there only when all went well; skip the test where it did not."""
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments, str(part)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        pytest.skip(f"{folder.name} can't be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    part.replace(folder)


def transformers_4(cache: str) -> Path:
    """Folder that, before the installed packages, makes `transformers` version 4.57; torch is the installed one."""
    folder = Path(cache) / "readers" / "transformers-4.57.6"
    if not folder.is_dir():
        _pip(folder, "install", "--no-deps", "--only-binary", ":all:", *TRANSFORMERS_4, "--target")
    return folder


def converter(cache: str) -> Path:
    """llama.cpp's convert_hf_to_gguf.py, as it ships in llama-cpp-python's source."""
    folder = Path(cache) / "readers" / f"llama-cpp-python-{LLAMA_CPP}"
    if not folder.is_dir():
        name = f"llama-cpp-python=={LLAMA_CPP}"
        _pip(folder, "download", "--no-deps", "--no-binary", "llama-cpp-python", name, "--dest")
    program = folder / f"llama_cpp_python-{LLAMA_CPP}" / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    if not program.is_file():
        [source] = folder.glob("*.tar.gz")
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
    return program
