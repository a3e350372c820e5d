"""Secrets of devices and administrators: drawn from the operating system, stored as hashes, compared in constant time.

A device's credential is ``ID.SECRET``; a token for enrolment and the administrator's credential are a secret each. A
secret has 256 random bits, which no hash needs to be slow for.
"""

import hashlib
import hmac
import secrets

__all__ = ["device_credential", "new_secret", "same_secret", "secret_hash", "split_credential"]

# Bytes, so that guessing is hopeless however fast.
_SECRET_BYTES = 32
_ID_BYTES = 9


def new_secret() -> str:
    """A secret of letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def device_credential() -> tuple[str, str, str]:
    """A new device's public id, its whole credential, and the hash of it that is kept."""
    device_id, secret = secrets.token_hex(_ID_BYTES), new_secret()
    return device_id, f"{device_id}.{secret}", secret_hash(secret)


def secret_hash(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def split_credential(credential: str) -> tuple[str, str]:
    """A device's id and its secret; the secret is empty where there is none."""
    device_id, _, secret = credential.partition(".")
    return device_id, secret


def same_secret(secret: str, stored_hash: str) -> bool:
    """Whether a secret is the one of that hash, in time that does not tell where they differ."""
    return hmac.compare_digest(secret_hash(secret), stored_hash)
