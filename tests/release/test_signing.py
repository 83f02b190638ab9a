"""Signatures: what they show, and what they can't."""

import shutil
from pathlib import Path

import pytest
from keys import make_certificate, make_key
from releases import write_bundle

from kto_release.errors import ReleaseError
from kto_release.release.signing import PUBLIC_KEY, SignWith, Trust, check, sign, write_public_key

pytest.importorskip("model_signing", reason="signing needs the extra `signing`")


@pytest.fixture
def signed(tmp_path: Path, bundle: Path) -> tuple[Path, Path]:
    """A signed bundle, and the public key."""
    private, public = make_key(tmp_path)
    write_public_key(bundle, SignWith(key=private))
    sign(bundle, SignWith(key=private))
    return bundle, public


def test_the_makers_key_fits(signed: tuple[Path, Path]) -> None:
    """The signature is checked with the maker's public key; the one in the bundle is the same."""
    bundle, public = signed
    check(bundle, Trust(key=public))
    assert (bundle / PUBLIC_KEY).read_bytes() == public.read_bytes()


def test_another_key_does_not(signed: tuple[Path, Path], tmp_path: Path) -> None:
    """Somebody else's key is told."""
    _, other = make_key(tmp_path, "other")
    with pytest.raises(ReleaseError, match=r"model\.sig does not fit this release: Key mismatch"):
        check(signed[0], Trust(key=other))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b: (b / "config.json").write_text("{}"), "Hash mismatch for 'config.json'"),
        (lambda b: (b / "config.json").unlink(), "Missing files in model 'bundle': config.json"),
        (lambda b: (b / "extra.txt").write_text("x"), "Extra files found in model 'bundle': extra.txt"),
        (lambda b: (b / "release.json").write_text("{}"), "Hash mismatch for 'release.json'"),
    ],
)
def test_changes_are_named(signed: tuple[Path, Path], change: object, told: str) -> None:
    """A changed, missing or added file breaks the signature, and is named."""
    change(signed[0])  # type: ignore[operator]
    with pytest.raises(ReleaseError) as caught:
        check(signed[0], Trust(key=signed[1]))
    assert told in str(caught.value)


def test_any_bit_of_the_signature_counts(signed: tuple[Path, Path]) -> None:
    """Every bit of every byte, in base64's unused bits too: none can be flipped unnoticed. (Each 29th is tried.)"""
    bundle, public = signed
    path = bundle / "model.sig"
    whole = path.read_bytes()
    unnoticed = []
    for bit in range(0, 8 * len(whole), 29):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(damaged))
        try:
            check(bundle, Trust(key=public))
        except ReleaseError:
            continue
        unnoticed.append(bit)
    assert unnoticed == []


def test_unused_bits_of_base64_are_not_free(signed: tuple[Path, Path]) -> None:
    """The last character before the padding has bits that decoding ignores: setting one is noticed all the same."""
    bundle, public = signed
    path = bundle / "model.sig"
    text = path.read_text()
    end = text.index('="')
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    start = end - 1 if text[end - 1] != "=" else end - 2
    other = letters[letters.index(text[start]) ^ 1]
    path.write_text(text[:start] + other + text[start + 1 :])
    with pytest.raises(ReleaseError, match=r"model\.sig was changed after it was made"):
        check(bundle, Trust(key=public))


def test_a_signature_that_still_fits_is_kept(signed: tuple[Path, Path], tmp_path: Path) -> None:
    """Signing holds a random number; a repeated publish keeps the old signature, so that it sends nothing."""
    bundle, _ = signed
    earlier = tmp_path / "earlier.sig"
    shutil.move(bundle / "model.sig", earlier)
    sign(bundle, SignWith(key=tmp_path / "key.pem"), earlier=earlier)
    assert (bundle / "model.sig").read_bytes() == earlier.read_bytes()
    (bundle / "config.json").write_text("{}")
    sign(bundle, SignWith(key=tmp_path / "key.pem"), earlier=earlier)
    assert (bundle / "model.sig").read_bytes() != earlier.read_bytes()
    check(bundle, Trust(key=signed[1]))


def test_a_download_may_bring_its_own_files(signed: tuple[Path, Path]) -> None:
    """What `hf download` and git put beside the release is not part of what is signed."""
    bundle, public = signed
    (bundle / ".cache" / "huggingface").mkdir(parents=True)
    (bundle / ".cache" / "huggingface" / "lock").write_text("")
    (bundle / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    check(bundle, Trust(key=public))


def test_links_of_the_cache_are_followed(signed: tuple[Path, Path], tmp_path: Path) -> None:
    """The Hub's cache holds links, not files."""
    bundle, public = signed
    links = tmp_path / "snapshot"
    for path in [p for p in bundle.rglob("*") if p.is_file()]:
        link = links / path.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    check(links, Trust(key=public))


def test_by_certificate(bundle: Path, tmp_path: Path) -> None:
    """A release signed with a certificate is checked by the authority behind it, and not by another one."""
    private, own, authority = make_certificate(tmp_path)
    how = SignWith(key=private, certificate=own, chain=(authority,))
    write_public_key(bundle, how)
    sign(bundle, how)
    check(bundle, Trust(chain=(authority,)))
    assert not (bundle / PUBLIC_KEY).exists()
    (tmp_path / "other").mkdir()
    _, _, other = make_certificate(tmp_path / "other")
    with pytest.raises(ReleaseError, match=r"does not fit this release: the certificate is not vouched for: "):
        check(bundle, Trust(chain=(other,)))


def test_a_key_that_is_none(tmp_path: Path) -> None:
    """A file that holds no key is one clear error."""
    (tmp_path / "key.pem").write_text("not a key")
    bundle = write_bundle(tmp_path / "b")
    with pytest.raises(ReleaseError, match=r"key\.pem' can't be used"):
        write_public_key(bundle, SignWith(key=tmp_path / "key.pem"))
