"""Save a tokenizer so that it reads back the same."""

import json
import shutil
from pathlib import Path
from typing import Any

from kto_release.errors import ModelError
from kto_release.files import write_atomically
from kto_release.templates.contract import difference
from kto_release.templates.samples import SAMPLES

VOCABULARIES = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")
"""Vocabularies that other programs read, and that transformers 5 does not write again: llama.cpp takes a SentencePiece
tokenizer's scores from tokenizer.model, and without it gives other ids."""


def keep_vocabulary(source: Path, folder: Path) -> None:
    """Copy the vocabularies of the model in `source` that are not in `folder`."""
    for name in VOCABULARIES:
        if (source / name).is_file() and not (folder / name).exists():
            shutil.copyfile(source / name, folder / name)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer with its template, and prove that it gives the same ids when it is loaded again.

    transformers 5.19 forgets `legacy` of Llama's and Mistral's SentencePiece tokenizers when it saves them; loaded
    again, they no longer put a space behind a special token ("▁<" becomes "<"), so a model would be evaluated with
    other ids than it was trained with. The key is put back, and so are the vocabularies that it was loaded with. Raises
    `ModelError` where the ids still differ.
    """
    tokenizer.save_pretrained(folder)
    keep_vocabulary(Path(str(tokenizer.name_or_path)), folder)
    path = folder / "tokenizer_config.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    legacy = getattr(tokenizer, "legacy", None)
    if isinstance(legacy, bool) and plain.get("legacy") != legacy:
        write_atomically(path, json.dumps({**plain, "legacy": legacy}, indent=2, ensure_ascii=False) + "\n")
    check_reload(tokenizer, folder)


def check_reload(tokenizer: Any, folder: Path) -> None:
    """Raise `ModelError` where the tokenizer saved in `folder` gives other ids, or has another chat template."""
    from transformers import AutoTokenizer

    is_remote = type(tokenizer).__module__.startswith("transformers_modules")  # a class that the repository brought
    saved = (type(tokenizer) if is_remote else AutoTokenizer).from_pretrained(folder)
    if saved.chat_template != tokenizer.chat_template:
        raise ModelError("the saved tokenizer has another chat template than the one that was saved")
    texts = [message["content"] for sample in SAMPLES for message in sample.whole]
    marks = [token for token in (tokenizer.bos_token, tokenizer.eos_token) if token]
    texts += [f"{mark}{text}" for mark in marks for text in texts]
    for special in (True, False):
        for text in texts:
            one, other = (each(text, add_special_tokens=special)["input_ids"] for each in (tokenizer, saved))
            if one != other:
                raise ModelError(
                    f"the tokenizer gives other ids after saving: {difference(tokenizer, one, other)}",
                    expected="the same ids before and after",
                    todo="save the base model's tokenizer anew with this version of transformers, and start from that",
                )
