"""A member of a secure sum: from its keys to the shares that unmask the sum. No IO; secrets of the OS's generator.

Rules (Bonawitz et al. 2017, figure 4; the sparse graph of Bell et al. 2020, algorithm 2):

1. ``keys``, ``shares``, ``masked``, ``unmask``, in this order. An error changes nothing: the right bytes may follow.
2. ``shares``: the member draws a seed, and seals a share of it and a share of its private mask key for each neighbour.
   Asked again for the same roster it answers the same bytes; another roster is refused.
3. ``masked``: the vector, plus the mask of its seed, plus (for neighbours of a higher place) or minus (of a lower one)
   the mask that it shares with each neighbour whose shares came. Once: a second vector under the same masks would tell
   the difference.
4. ``unmask``: of each holder whose shares came, its own secrets included, one share: of the seed of one that is in the
   sum, of the mask key of one that is not. It refuses both for one, a key of its own, fewer holders in the sum than the
   threshold, fewer members than its settings' minimum, and any second request that differs from the first.
"""

import secrets

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pocketfleet.training.privacy.secure_aggregation.masks import Purpose, add_masks, agreed_key, self_mask_key
from pocketfleet.training.privacy.secure_aggregation.messages import (
    KEY,
    KEYS_BYTES,
    NONCE_BYTES,
    PUBLIC_KEY_BYTES,
    SEALED_BYTES,
    SEED,
    Roster,
    SecureAggregationError,
    Survivors,
    fixed_parts,
    packed,
)
from pocketfleet.training.privacy.secure_aggregation.secret_share import SECRET_BYTES, SHARE_BYTES, shared
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings

__all__ = ["SecureClient"]


class SecureClient:
    """One member, of one round.

    Args:
        settings: of the vector, as the server has them.
    """

    def __init__(self, settings: SecureSettings) -> None:
        self.settings = settings
        self._mask_key = X25519PrivateKey.generate()
        self._share_key = X25519PrivateKey.generate()
        self._mask_public = self._mask_key.public_key().public_bytes_raw()
        self._share_public = self._share_key.public_key().public_bytes_raw()
        self._seed = secrets.token_bytes(SECRET_BYTES)
        self._roster: Roster | None = None
        # By the neighbour's place: what shares to and from it are sealed with.
        self._ciphers: dict[int, AESGCM] = {}
        self._sent_shares: tuple[bytes, bytes] | None = None
        # A pair of shares, of seed and of key, by the place of the holder whose they are; its own too.
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._is_masked = False
        self._answered: tuple[bytes, bytes] | None = None

    def keys(self) -> bytes:
        """Its public keys, 64 bytes; the same at every call."""
        return self._mask_public + self._share_public

    def shares(self, roster: bytes) -> bytes:
        """Its secrets' shares, sealed for each neighbour of the roster.

        Raises:
            SecureAggregationError: the bytes are no roster, or not one that this member can be in; another roster was
                answered before.
        """
        if self._sent_shares is not None:
            if self._sent_shares[0] != roster:
                raise SecureAggregationError("this member has answered another roster; it answers one a round")
            return self._sent_shares[1]
        given = self._checked(Roster.from_bytes(roster))
        holders = sorted([*given.keys, given.place])
        private = self._mask_key.private_bytes_raw()
        pairs = list(
            zip(
                shared(self._seed, holders=len(holders), threshold=given.threshold),
                shared(private, holders=len(holders), threshold=given.threshold),
                strict=True,
            )
        )
        ciphers = {place: AESGCM(self._agreed(keys, "shares")) for place, keys in given.keys.items()}
        sealed = []
        for holder, pair in zip(holders, pairs, strict=True):
            if holder == given.place:
                own = pair
                continue
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed.append(nonce + ciphers[holder].encrypt(nonce, b"".join(pair), _route(given.place, holder)))
        answer = b"".join(sealed)
        self._roster, self._ciphers, self._sent_shares = given, ciphers, (roster, answer)
        self._held = {given.place: own}
        return answer

    def masked(self, shares_for_me: bytes, vector: RingVector) -> bytes:
        """The vector under its masks.

        Args:
            shares_for_me: of the neighbours, from the server.
            vector: numbers of the ring, ``[vector_length]``, of the settings' ``dtype``; unchanged.

        Raises:
            SecureAggregationError: the bytes are not so many shares, or altered, or not for this member; fewer holders
                than the threshold; it has masked a vector, or sent no shares.
            ValueError: the vector is none of the settings'.
        """
        roster = self._in_stage("masked")
        if self._is_masked:
            raise SecureAggregationError("this member has masked a vector; it masks one a round")
        if vector.shape != (self.settings.vector_length,) or vector.dtype != self.settings.dtype:
            raise ValueError(
                f"the vector must be {self.settings.dtype} of shape ({self.settings.vector_length},), got "
                f"{vector.dtype} of shape {vector.shape}"
            )
        if int(vector.max()) >= self.settings.ring:
            raise ValueError(f"the vector's numbers must be below {self.settings.ring}, got {int(vector.max())}")
        held = self._opened(roster, shares_for_me)
        if len(held) + 1 < roster.threshold:
            raise SecureAggregationError(
                f"{len(held) + 1} holders of this member's secrets are left, the threshold is {roster.threshold}: the "
                f"sum could not be unmasked"
            )
        plus, minus = [self_mask_key(self._seed)], list[bytes]()
        for place in held:
            (plus if place > roster.place else minus).append(self._agreed(roster.keys[place], "pair mask"))
        words = vector.copy()
        add_masks(words, plus=plus, minus=minus)
        self._held |= held
        self._is_masked = True
        return packed(words, self.settings)

    def unmask(self, survivors: bytes) -> bytes:
        """The shares that the server needs, one of each holder that is in the sum or dropped out of it.

        Raises:
            SecureAggregationError: the request is none, asks for what rule 4 refuses, or comes before the vector.
        """
        roster = self._in_stage("unmask")
        if self._answered is not None:
            if self._answered[0] != survivors:
                raise SecureAggregationError(
                    "this member has answered another request to unmask: a second could get both kinds of shares of one"
                )
            return self._answered[1]
        request = Survivors.from_bytes(survivors, degree=len(roster.keys))
        self._check_request(roster, request)
        parts = []
        for place, wanted in request.wanted.items():
            share = self._held[place][wanted - 1] if wanted else bytes(SHARE_BYTES)
            parts.append(bytes([wanted]) + share)
        answer = b"".join(parts)
        self._answered = (survivors, answer)
        return answer

    def _check_request(self, roster: Roster, request: Survivors) -> None:
        for place, wanted in request.wanted.items():
            if place != roster.place and place not in roster.keys:
                raise SecureAggregationError(
                    f"member {place} is no neighbour of this one, which holds no share of its secrets"
                )
            if wanted == SEED | KEY:
                raise SecureAggregationError(
                    f"both kinds of shares of member {place} are asked for: they would unmask its vector alone"
                )
            if wanted > KEY:
                raise SecureAggregationError(f"what is wanted of a holder is 0, {SEED} or {KEY}, got {wanted}")
            if wanted and place not in self._held:
                raise SecureAggregationError(f"no shares of member {place} came to this one")
            if wanted == 0 and place in self._held:
                raise SecureAggregationError(f"member {place} has sent its shares: it is in the sum, or it dropped out")
        if request.wanted[roster.place] != SEED:
            raise SecureAggregationError("this member has sent its vector, and the request takes it for dropped out")
        inside = sum(wanted == SEED for wanted in request.wanted.values())
        if inside < roster.threshold:
            raise SecureAggregationError(
                f"{inside} of the {len(request.wanted)} holders of this member's secrets are in the sum, the threshold "
                f"is {roster.threshold}"
            )
        if request.members < max(self.settings.minimum, inside):
            raise SecureAggregationError(
                f"a sum must be of {max(self.settings.minimum, inside)} members or more, got {request.members}"
            )

    def _in_stage(self, stage: str) -> Roster:
        """The roster, if the stage's turn has come."""
        if self._roster is None or (stage == "unmask" and not self._is_masked):
            before = "shares" if self._roster is None else "masked"
            raise SecureAggregationError(f"the stage {stage!r} comes after {before!r}, which this member has not done")
        return self._roster

    def _checked(self, roster: Roster) -> Roster:
        if roster.members < self.settings.minimum:
            raise SecureAggregationError(
                f"a group must be of {self.settings.minimum} members or more, got {roster.members}"
            )
        if not roster.keys:
            raise SecureAggregationError("a member needs a neighbour at least, got a roster of none")
        if self.keys() in roster.keys.values():
            raise SecureAggregationError("the roster gives this member's own keys to another")
        return roster

    def _opened(self, roster: Roster, shares_for_me: bytes) -> dict[int, tuple[bytes, bytes]]:
        """The shares of each neighbour whose came, by its place."""
        parts = fixed_parts(
            shares_for_me, count=len(roster.keys), part_bytes=1 + SEALED_BYTES, what="the shares for a member"
        )
        held = {}
        for place, part in zip(roster.keys, parts, strict=True):
            if not any(part):
                continue
            came, nonce, sealed = part[0], part[1 : 1 + NONCE_BYTES], part[1 + NONCE_BYTES :]
            try:
                pair = self._ciphers[place].decrypt(nonce, sealed, _route(place, roster.place))
            except InvalidTag:
                pair = b""
            if came != 1 or not pair:
                raise SecureAggregationError(
                    f"the shares of member {place} are altered, or were not sealed for this one"
                )
            held[place] = (pair[:SHARE_BYTES], pair[SHARE_BYTES:])
        return held

    def _agreed(self, keys: bytes, purpose: Purpose) -> bytes:
        """The key that this member agrees on with the neighbour of these keys."""
        own = self.keys()
        private, part = self._mask_key, slice(PUBLIC_KEY_BYTES)
        if purpose == "shares":
            private, part = self._share_key, slice(PUBLIC_KEY_BYTES, KEYS_BYTES)
        try:
            return agreed_key(private, own[part], keys[part], purpose=purpose)
        except ValueError as exc:
            raise SecureAggregationError(f"a neighbour's public key cannot be agreed with: {exc}") from exc


def _route(sender: int, receiver: int) -> bytes:
    """What a seal says of its way, unencrypted and authenticated."""
    return np.array([sender, receiver], "<u4").tobytes()
