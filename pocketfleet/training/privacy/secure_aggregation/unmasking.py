"""Which secrets of its members a sum needs, the shares of them that came, and the masks that they restore.

Rules:

1. Of a member in the sum its seed is needed: its own mask is in the sum. Of one that sent shares and no vector its mask
   key, if a neighbour of it is in the sum: the masks that the two share are in it, and have not cancelled.
2. Each holder in the sum is asked for one share of each member that sent shares: of its seed if it is in the sum, else
   of its mask key. No more shares are kept than the threshold.
"""

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pocketfleet.training.privacy.secure_aggregation.masks import agreed_key, self_mask_key
from pocketfleet.training.privacy.secure_aggregation.messages import KEY, PUBLIC_KEY_BYTES, SEED
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.secret_share import restored

__all__ = ["Unmasking", "needed_secrets"]

Bools = npt.NDArray[np.bool_]


def needed_secrets(neighbourhood: Neighbourhood, *, sent_shares: Bools, in_sum: Bools) -> Bools:
    """Rule 1: whose secret is needed; all ``[members]``."""
    touched = in_sum[neighbourhood.neighbours].any(axis=1)
    needed: Bools = in_sum | (sent_shares & touched)
    return needed


class Unmasking:
    """Of one group, whose vectors are in.

    Args:
        neighbourhood: of the group.
        sent_shares: by member, ``[members]``.
        in_sum: by member.
    """

    def __init__(self, neighbourhood: Neighbourhood, *, sent_shares: Bools, in_sum: Bools) -> None:
        self._neighbourhood = neighbourhood
        self._sent_shares = sent_shares.copy()
        self._in_sum = in_sum.copy()
        needed = needed_secrets(neighbourhood, sent_shares=sent_shares, in_sum=in_sum)
        # By member: shares by the holder's number among its holders.
        self._shares: dict[int, dict[int, bytes]] = {place: {} for place in np.flatnonzero(needed).tolist()}

    def wanted(self, holder: int) -> dict[int, int]:
        """Rule 2: by member whose share it holds, ascending, the kind; 0 of one that sent none."""
        members = self._neighbourhood.holders(holder)
        kinds = [SEED if self._in_sum[place] else KEY for place in members]
        return {place: kind if self._sent_shares[place] else 0 for place, kind in zip(members, kinds, strict=True)}

    def take(self, holder: int, shares: dict[int, bytes]) -> None:
        """A holder's shares, by member; of a kind as wanted."""
        for place, share in shares.items():
            kept = self._shares.get(place)
            if kept is not None and len(kept) < self._neighbourhood.threshold:
                kept[self._neighbourhood.holders(place).index(holder)] = share

    def lacking(self) -> dict[int, int]:
        """Of whose secrets fewer shares came than the threshold, and how many."""
        threshold = self._neighbourhood.threshold
        return {place: len(shares) for place, shares in self._shares.items() if len(shares) < threshold}

    def mask_keys(self, keys: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """The keys of the masks that unmask the sum.

        Args:
            keys: what each member reported.

        Returns:
            Of masks to add, and of masks to take away.

        Raises:
            ValueError: shares do not restore what they are of.
        """
        plus: list[bytes] = []
        minus: list[bytes] = []
        for place, shares in self._shares.items():
            try:
                secret = restored(shares)
            except ValueError as exc:
                raise ValueError(f"the shares of the secret of member {place} do not fit together") from exc
            if self._in_sum[place]:
                minus.append(self_mask_key(secret))
                continue
            private = X25519PrivateKey.from_private_bytes(secret)
            public = keys[place][:PUBLIC_KEY_BYTES]
            if private.public_key().public_bytes_raw() != public:
                raise ValueError(f"the shares of the mask key of member {place} restore another key than it reported")
            for other in self._neighbourhood.neighbours[place].tolist():
                if self._in_sum[other]:
                    key = agreed_key(private, public, keys[other][:PUBLIC_KEY_BYTES], purpose="pair mask")
                    # A member added the masks with those of a higher place, and took away the others.
                    (minus if place > other else plus).append(key)
        return plus, minus
