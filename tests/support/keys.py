"""Keys for the tests of signatures."""

from pathlib import Path


def make_key(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """A new private key, and its public half."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    paths[0].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    paths[1].write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return paths
