"""llama.cpp itself, where llama-cpp-python is installed: its k-quants, and its reading of what a release recorded."""

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

from kto_release.errors import ReleaseError
from kto_release.models import LocalModel, load_tokenizer
from kto_release.release.replay import TEST, TemplateTest
from kto_release.templates import render_text

INSTALL = "pip install 'kto-release[gguf]'"


def is_installed() -> bool:
    """Whether llama.cpp's library can be asked."""
    return importlib.util.find_spec("llama_cpp") is not None


def quantize(source: Path, target: Path, kind: str) -> None:
    """Make a k-quant of a GGUF file. Raises `ReleaseError` where the library is not here, or refuses."""
    if not is_installed():
        raise ReleaseError(
            f"release.gguf: {kind} needs llama.cpp's library, and llama-cpp-python is not installed",
            todo=f"{INSTALL}, or take {kind} out of release.gguf",
        )
    import llama_cpp

    params: Any = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0 or not target.is_file():
        raise ReleaseError(f"llama.cpp could not make {kind} of {source.name!r} (code {code})")


def problems(file: Path, folder: Path) -> list[str]:
    """What llama.cpp's tokenizer makes otherwise of the conversations that the release in `folder` recorded.

    Empty: every conversation has its recorded ids, the template is the release's, and each answer ends where
    generation stops.
    """
    import llama_cpp

    test = TemplateTest.model_validate_json((folder / TEST).read_bytes())
    tokenizer = load_tokenizer(LocalModel(folder, folder.name, None, None))
    model: Any = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    found = []
    try:
        if model.metadata.get("tokenizer.chat_template") != tokenizer.chat_template:
            found.append("the file holds another chat template")
        for one in test.conversations:
            if one.ids is None:
                continue
            text = render_text(tokenizer, one.messages, prompt=one.add_generation_prompt)
            ids = model.tokenize(text.encode(), add_bos=False, special=True)
            if ids != one.ids:
                found.append(f"{one.name!r}: {ids[:24]} for {one.ids[:24]}")
            elif not one.add_generation_prompt and not any(_ends(llama_cpp, model, number) for number in ids[-3:]):
                found.append(f"{one.name!r}: no token at its end stops llama.cpp")
    finally:
        model.close()
    return found


def _ends(llama_cpp: Any, model: Any, number: int) -> bool:
    return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(model.model), number))
