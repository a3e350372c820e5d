"""Sums of devices' vectors of which the server reads the sum alone, though devices vanish at any stage. No IO.

The protocol is that of Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning"
(doi 10.1145/3133956.3133982), against a server that follows it and reads along, on the sparse graph of Bell et al.
2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead" (eprint.iacr.org/2020/704, section 3).

Read in this order:

1. ``settings``: what devices and server know before the round; ``neighbourhood``: who masks with whom, how many must
   stay.
2. ``messages``: the bytes of each stage, and how many they are.
3. ``secret_share``, ``masks``: a secret among holders, and keys as streams of masks in a ring.
4. ``client``, ``server`` and its ``unmasking``: the two machines; ``transcript``: what passed between them.
5. ``ring``, ``fixed_point``, ``secure_vector``: an update as a vector of the ring, and the mean out of the sum.

A round, where ``i`` is a member's place in its group, 0 to n - 1:

| stage | down to a member | up from it |
|---|---|---|
| keys | | ``client.keys()``: what the device reports |
| shares | ``server.roster(i)`` | ``client.shares(roster)`` -> ``server.take_shares(i, ...)`` |
| | | ``server.close_shares()`` |
| masked | ``server.shares_for(i)`` | ``client.masked(shares, vector)`` -> ``server.take_masked(i, ...)`` |
| | | ``server.close_masked()`` |
| unmask | ``server.survivors_for(i)`` | ``client.unmask(survivors)`` -> ``server.take_unmask(i, ...)`` |
| | | ``server.sum()`` |

Nothing is imported here: importing a module loads what that module needs, and no more.
"""
