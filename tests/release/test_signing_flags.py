"""What is asked for on the command line about signatures, where it contradicts itself."""

from pathlib import Path
from typing import Any

import pytest

from kto_release.errors import RecipeError
from kto_release.release.signing import SignWith, Trust, sign_with, trust_in


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "some.pem"
    path.write_text("")
    return path


NO_KEY = "--sign-certificate needs --sign-key, and --sign-chain needs both"
TWO_SIGNERS = "--sign-sigstore goes without a key or certificate"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"key": True, "sigstore": True}, TWO_SIGNERS),
        ({"certificate": True, "sigstore": True}, TWO_SIGNERS),
        ({"chain": True, "sigstore": True}, TWO_SIGNERS),
        ({"certificate": True}, NO_KEY),
        ({"chain": True}, NO_KEY),
        ({"key": True, "chain": True}, NO_KEY),
    ],
)
def test_conflicting_ways_to_sign(pem: Path, given: dict[str, bool], problem: str) -> None:
    """Sigstore goes alone, a certificate needs its key, a chain both."""
    key, certificate = (pem if given.get(name) else None for name in ("key", "certificate"))
    with pytest.raises(RecipeError) as caught:
        sign_with(key, certificate, [pem] if given.get("chain") else [], sigstore=given.get("sigstore", False))
    assert caught.value.problem == problem


def test_ways_to_sign(pem: Path) -> None:
    """A key, a key with its certificate and chain, Sigstore, or not at all."""
    assert sign_with(pem, None, [], sigstore=False) == SignWith(pem)
    assert sign_with(pem, pem, [pem], sigstore=False) == SignWith(pem, pem, (pem,))
    assert sign_with(None, None, [], sigstore=True) == SignWith()
    assert sign_with(None, None, [], sigstore=False) is None


IDENTITY: dict[str, Any] = {"identity": "me@example.org", "issuer": "https://accounts.example.org"}


@pytest.mark.parametrize("given", [("key", "chain"), ("key", "identity"), ("chain", "identity")])
def test_two_ways_of_trust_at_once(pem: Path, given: tuple[str, str]) -> None:
    """Which of them the signature was checked by would not be clear."""
    who = IDENTITY if "identity" in given else {"identity": None, "issuer": None}
    with pytest.raises(RecipeError) as caught:
        trust_in(pem if "key" in given else None, [pem] if "chain" in given else [], **who)
    assert caught.value.problem == "a signature is checked in one way"


@pytest.mark.parametrize("left_out", ["identity", "issuer"])
def test_half_an_identity(left_out: str) -> None:
    """An identity means nothing without who vouches for it."""
    with pytest.raises(RecipeError) as caught:
        trust_in(None, [], **{**IDENTITY, left_out: None})
    assert caught.value.problem == "--identity and --issuer go together"


def test_ways_of_trust(pem: Path) -> None:
    """A key, a chain, an identity, or nothing."""
    assert trust_in(pem, [], None, None) == Trust(key=pem)
    assert trust_in(None, [pem], None, None) == Trust(chain=(pem,))
    assert trust_in(None, [], **IDENTITY) == Trust(**IDENTITY)
    assert trust_in(None, [], None, None) is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Found before anything is built."""
    with pytest.raises(RecipeError, match="no such file"):
        sign_with(tmp_path / "no.pem", None, [], sigstore=False)
