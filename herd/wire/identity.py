"""Who a router or an agent is: a key that never leaves its machine, and the certificate by which others know it.

Nobody vouches for a certificate; it is compared as a whole. Its id is the SHA-256 of it, so a name that is bound to an
id is bound to the key. The files are their owner's alone, and a link in their place is not followed.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from herd.wire.files import FileUnsafe, read_alone, write_alone

KEY_FILE: Final = "identity.key"
CERTIFICATE_FILE: Final = "identity.crt"
LIFE: Final = timedelta(days=20 * 365)
CLOCK_SLACK: Final = timedelta(days=365)  # a machine without a clock of its own begins in the past
HASH: Final = ec.ECDSA(hashes.SHA256())
MOST_BYTES: Final = 4096  # of a certificate; ours have about 400


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key, and its certificate in DER."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: bytes

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return id_of(self.certificate)

    def sign(self, data: bytes) -> bytes:
        """A signature in DER."""
        return self.key.sign(data, HASH)


def id_of(certificate: bytes) -> str:
    """The id of a certificate in DER."""
    return hashlib.sha256(certificate).hexdigest()


def shown(key_id: str) -> str:
    """An id as people compare it: its first 16 characters in base32, `K7QF-3M2A-…`."""
    text = base64.b32encode(bytes.fromhex(key_id))[:16].decode()
    return "-".join(text[at : at + 4] for at in range(0, 16, 4))


def public_key(certificate: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a certificate in DER. Raises ValueError where it is none, or not of our kind."""
    if len(certificate) > MOST_BYTES:
        raise ValueError(f"a certificate is at most {MOST_BYTES} bytes")
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the certificate's key is not an ECDSA key on P-256")
    return key


def is_signed(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Whether a signature is of this key and these bytes."""
    try:
        key.verify(signature, data, HASH)
    except InvalidSignature:
        return False
    return True


def made(name: str) -> Identity:
    """A new identity; the name in it is for people."""
    return _certified(ec.generate_private_key(ec.SECP256R1()), name)


def kept(folder: Path, name: str) -> Identity:
    """The identity of a folder, made there if there is none.

    Raises FileUnsafe, or OSError where the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = _key(folder / KEY_FILE)
    certificate = read_alone(folder / CERTIFICATE_FILE) if found else None
    if found and certificate:
        return Identity(found, _matching(certificate, found, folder / CERTIFICATE_FILE))
    identity = _certified(found, name) if found else made(name)
    pem = serialization.Encoding.PEM
    if not found:
        private, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        write_alone(folder / KEY_FILE, identity.key.private_bytes(pem, private, bare))
    write_alone(folder / CERTIFICATE_FILE, x509.load_der_x509_certificate(identity.certificate).public_bytes(pem))
    return identity


def as_pem(certificate: bytes) -> str:
    """A certificate in DER as the text that TLS libraries take."""
    return x509.load_der_x509_certificate(certificate).public_bytes(serialization.Encoding.PEM).decode()


def _key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    content = read_alone(path)
    if content is None:
        return None
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise FileUnsafe(
            f"{path} is no private key ({error}); remove it, and the machine is another one"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FileUnsafe(f"{path} is not an ECDSA key on P-256; remove it, and the machine is another one")
    return key


def _matching(content: bytes, key: ec.EllipticCurvePrivateKey, path: Path) -> bytes:
    try:
        certificate = x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise FileUnsafe(f"{path} is no certificate ({error})") from error
    if certificate.public_key() != key.public_key():
        raise FileUnsafe(f"{path} is of another key than {KEY_FILE}")
    return certificate.public_bytes(serialization.Encoding.DER)


def _certified(key: ec.EllipticCurvePrivateKey, name: str) -> Identity:
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])]), datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - CLOCK_SLACK).not_valid_after(now + LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return Identity(key, certificate.public_bytes(serialization.Encoding.DER))
