"""What is learnt, and how many devices' updates become the next model. Knows no phone and no runtime.

Read in this order:

1. ``examples``, ``task`` and ``tasks``: what is learnt, from which data; ``partition``: who holds what.
2. ``weights``, ``train_step``, ``batches``: one on-device step, a pure function; which batch comes when.
3. ``update``, ``codec``: what a device reports, and its bytes.
4. ``aggregation``, ``server_optimizer``, ``algorithm`` and ``algorithms``: from updates to the next model; ``traffic``:
   what travels for it. Where some may lie: ``robust_rules``, ``update_rows``, ``robust_aggregation``, ``norm_bound``;
   ``aggregation_by_rule`` picks one.
5. ``round``, ``coordinator``: rounds as a state machine without IO and without tensors.

``draws`` owns chance, ``feature_scaling`` standardised inputs. Nothing is imported here: importing a module loads
what that module needs, and no more.
"""
