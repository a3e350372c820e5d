from pocketfleet.training.server.credentials import (
    device_credential,
    new_secret,
    same_secret,
    secret_hash,
    split_credential,
)


def test_a_credential_is_known_by_its_hash_alone() -> None:
    device_id, credential, stored = device_credential()
    assert split_credential(credential)[0] == device_id
    secret = split_credential(credential)[1]
    assert secret not in stored
    assert same_secret(secret, stored)
    assert not same_secret(secret[:-1], stored)
    assert not same_secret("", stored)
    assert split_credential("no dot") == ("no dot", "")


def test_secrets_differ_and_are_long() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    # 32 bytes in base64 without padding.
    assert {len(secret) for secret in secrets} == {43}
    assert len(secret_hash("a")) == 64
