"""Signatures by OpenSSF model signing: what shows that a release is authentic, and not only whole.

A signature covers every file, release.json included. The public key beside it lets anybody see that the signature is
whole; *whose* it is shows only a key, certificate or identity that the reader has from somewhere else.
"""

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import RecipeError, ReleaseError
from kto_release.release.manifest import SIGNATURE

PUBLIC_KEY = "signing_key.pem"
PASSWORD_VARIABLE = "KTO_RELEASE_SIGNING_PASSWORD"  # noqa: S105  the variable's name
LARGEST = 20_000_000
"""Bytes of a signature; it holds a line for each file."""
NOT_SIGNED = (SIGNATURE, ".cache", ".gitattributes")
"""What a download adds beside the release, and the signature itself."""


class SignWith(NamedTuple):
    """How to sign: with a key, with a key and its certificate, or (all null) with Sigstore's identity."""

    key: Path | None = None
    """Private key of an elliptic curve (P-256, P-384 or P-521), PEM."""
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


class Trust(NamedTuple):
    """What a reader trusts: a public key, a chain of certificates, or a Sigstore identity."""

    key: Path | None = None
    chain: tuple[Path, ...] = ()
    identity: str | None = None
    """For example an e-mail address."""
    issuer: str | None = None
    """OpenID Connect issuer that vouches for the identity."""


def sign_with(key: Path | None, certificate: Path | None, chain: Sequence[Path], *, sigstore: bool) -> SignWith | None:
    """How to sign, from the command line; None: not at all. Raises `RecipeError` for what does not go together."""
    if sigstore and (key or certificate or chain):
        raise RecipeError("--sign-sigstore goes without a key or certificate", todo="leave one of them out")
    if (certificate or chain) and not (key and certificate):
        raise RecipeError("--sign-certificate needs --sign-key, and --sign-chain needs both", todo="give them too")
    _must_exist([path for path in (key, certificate, *chain) if path is not None])
    return SignWith(key, certificate, tuple(chain)) if key or sigstore else None


def trust_in(key: Path | None, chain: Sequence[Path], identity: str | None, issuer: str | None) -> Trust | None:
    """What the reader trusts, from the command line; None: nothing. Raises `RecipeError`."""
    if (identity is None) != (issuer is None):
        raise RecipeError("--identity and --issuer go together", todo="give both")
    if sum((key is not None, bool(chain), identity is not None)) > 1:
        raise RecipeError(
            "a signature is checked in one way", expected="--key, --certificate-chain, or --identity and --issuer"
        )
    _must_exist([path for path in (key, *chain) if path is not None])
    return Trust(key, tuple(chain), identity, issuer) if key or chain or identity else None


def _must_exist(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise RecipeError(f"no such file: {str(path)!r}", expected="a PEM file")


def write_public_key(bundle: Path, how: SignWith) -> None:
    """Put the public half of the key into the bundle, before its manifest is made."""
    _module("signing")  # where the extra is not installed, say so before anything else
    if how.key is None or how.certificate is not None:
        return
    from cryptography.hazmat.primitives import serialization

    with _failing(f"the key {str(how.key)!r} can't be used"):
        private = _check_curve(how.key, private=True)
        public = private.public_key().public_bytes(
            encoding=serialization.Encoding.PEM, format=serialization.PublicFormat.SubjectPublicKeyInfo
        )
    (bundle / PUBLIC_KEY).write_bytes(public)


def _check_curve(path: Path | None, *, private: bool) -> Any:
    """The key in a PEM file. Raises `ValueError` where it is of no elliptic curve that signatures are made with."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    content = path.read_bytes() if path is not None else b""
    if private:
        key: Any = serialization.load_pem_private_key(content, _password())
    else:
        key = serialization.load_pem_public_key(content)
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return key
    raise ValueError("it is no key of an elliptic curve: P-256, P-384 or P-521")


def sign(bundle: Path, how: SignWith, earlier: Path | None = None) -> None:
    """Write the signature of a finished bundle to model.sig.

    Signatures hold a random number: an `earlier` one that still fits is kept, so that a repeated publish changes
    nothing. Raises `ReleaseError` where signing is impossible.
    """
    if earlier is not None and earlier.is_file() and (bundle / PUBLIC_KEY).is_file():
        shutil.copyfile(earlier, bundle / SIGNATURE)
        try:
            check(bundle, Trust(key=bundle / PUBLIC_KEY))
        except ReleaseError:
            (bundle / SIGNATURE).unlink()
        else:
            return
    config = _module("signing").Config()
    with _failing("the release can't be signed"):
        if how.key is not None and how.certificate is not None:
            config.use_certificate_signer(
                private_key=how.key, signing_certificate=how.certificate, certificate_chain=how.chain
            )
        elif how.key is not None:
            config.use_elliptic_key_signer(private_key=how.key, password=_password())
        else:
            config.use_sigstore_signer(use_ambient_credentials=True)
        config.set_hashing_config(_hashing())
        config.sign(bundle, bundle / SIGNATURE)


def check(folder: Path, trust: Trust, beside: Sequence[Path] = ()) -> None:
    """Check the signature of a release; files `beside` it are passed over.

    Raises `ReleaseError` that says what does not fit.
    """
    config = _module("verifying").Config()
    _check_spelling(folder / SIGNATURE)
    with _failing(f"{SIGNATURE} does not fit this release"):
        if trust.identity is not None:
            config.use_sigstore_verifier(identity=trust.identity, oidc_issuer=trust.issuer or "")
        elif trust.chain:
            config.use_certificate_verifier(certificate_chain=trust.chain)
        else:
            _check_curve(trust.key, private=False)
            config.use_elliptic_key_verifier(public_key=trust.key)
        config.set_hashing_config(_hashing(beside))
        config.verify(folder, folder / SIGNATURE)


def _check_spelling(path: Path) -> None:
    """Refuse a signature that was touched where its verification does not look: spaces, unused bits of base64."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST)
        plain = json.loads(text)
        envelope = plain["dsseEnvelope"]
        encoded = [envelope["payload"], *(signature["sig"] for signature in envelope["signatures"])]
        same = all(base64.b64encode(base64.b64decode(part)).decode() == part for part in encoded)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        same = False
        plain, text = None, ""
    if not same or json.dumps(plain, separators=(",", ":"), ensure_ascii=False) != text:
        raise ReleaseError(
            f"{SIGNATURE} was changed after it was made, or is no signature",
            todo="don't trust this copy; download the release again",
        )


def _hashing(beside: Sequence[Path] = ()) -> Any:
    """Hash files as they are, links of the Hub's cache followed."""
    config = _module("hashing").Config().use_file_serialization()
    return config.set_allow_symlinks(True).set_ignored_paths(paths=[*map(Path, NOT_SIGNED), *beside])


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{name}")
    except ModuleNotFoundError as error:
        raise ReleaseError(
            f"signatures need the package {error.name!r}, which is not installed",
            todo="pip install 'kto-release[signing]'",
        ) from None


def _password() -> Any:
    password = os.environ.get(PASSWORD_VARIABLE)
    return password.encode() if password else None


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """One `ReleaseError` for the many things that model_signing, cryptography and pyOpenSSL throw."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from OpenSSL.crypto import X509StoreContextError

    try:
        yield
    except InvalidSignature:
        raise ReleaseError(f"{what}: it was made with another key, or changed", todo=_TODO) from None
    except X509StoreContextError as error:
        raise ReleaseError(f"{what}: the certificate is not vouched for: {error}", todo=_TODO) from None
    except (ValueError, TypeError, OSError, KeyError, AttributeError, UnsupportedAlgorithm, RuntimeError) as error:
        raise ReleaseError(f"{what}: {_rephrase(error)}", todo=_TODO) from None


_TODO = "check the key; if it is right, don't trust this copy"


def _rephrase(error: Exception) -> str:
    """The first line of a message; of a list of differences only what differs, without digests in Python's spelling."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].replace("\\'", "'")
    found = re.findall(
        r"(?:Hash mismatch for|Extra files found in model|Missing files in model) '[^']*'[^'\"\]]*", line
    )
    return "; ".join(part.removesuffix(": Expected ") for part in found) or line
