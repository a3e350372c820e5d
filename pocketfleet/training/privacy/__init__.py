"""What keeps updates unreadable and models forgetful of any one device. Knows no phone and no wire.

``secure_aggregation``: the server learns a sum of updates and no single one. The modules here are of differential
privacy: read ``privacy_plan``, ``clipping``, ``private_mean``, ``accountant``, then ``distributed_gaussian``, which is
for secure sums. Nothing is imported here.
"""
