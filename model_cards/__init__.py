"""The model card's template, and the citations that a card can carry: one .bib file each in citations/."""

import re
from importlib import resources
from pathlib import Path

from kto_release.errors import ReleaseError

TEMPLATE = "card.md.jinja"

MODEL_CITATIONS = {"mistralai/Mistral-7B": "mistral_7b", "HuggingFaceTB/SmolLM2": "smollm2"}
"""What to cite for a base model, by the beginning of its Hub id."""

DATA_CITATIONS = {
    "snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset": ["snorkel_mistral_pairrm", "pairrm", "ultrafeedback"],
    "HuggingFaceH4/ultrafeedback_binarized": ["ultrafeedback"],
    "openbmb/UltraFeedback": ["ultrafeedback"],
}
"""What to cite for a data set, by its Hub id."""

TEMPLATE_CITATIONS = {"tulu_v2": "tulu_v2"}
"""What to cite for a chat template, by its name."""


def card_template() -> str:
    """The Jinja source of the card."""
    return resources.files(__name__).joinpath(TEMPLATE).read_text(encoding="utf-8")


def citation_names() -> list[str]:
    """Names of the citations that come with kto-release."""
    folder = resources.files(__name__).joinpath("citations")
    return sorted(item.name.removesuffix(".bib") for item in folder.iterdir() if item.name.endswith(".bib"))


def citation(name: str) -> str:
    """The BibTeX of a citation: a name of `citation_names()`, or the path of a .bib file.

    Raises `ReleaseError` where there is none, or where it is no BibTeX.
    """
    if name in citation_names():
        text = resources.files(__name__).joinpath("citations", f"{name}.bib").read_text(encoding="utf-8")
    else:
        text = _read(name)
    if not re.match(r"\s*@\w+\s*\{\s*[^\s,{}]+\s*,", text) or text.count("{") != text.count("}"):
        raise ReleaseError(
            f"release.citations: {name!r} is no BibTeX", expected="@article{key, …} with as many { as }", todo="mend it"
        )
    return text.strip()


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ReleaseError(
            f"release.citations: no citation {name!r}",
            expected=f"a .bib file in UTF-8, or one of {', '.join(citation_names())}",
        ) from None
