"""The packaged algorithms over ``training.algorithm``'s seam, one a module.

Read ``fedavg`` first: the others are what it is but for a call or two. ``algorithm_by_name`` makes them by name.
"""
