"""A phone, a fleet of them, and the clock they live on.

Read in this order:

1. ``phone``, ``mix``, ``fleet``: hardware and who has it; ``catalog`` holds the tables, ``provenance`` their sources;
   ``cores``, ``threads``, ``thermal_class`` are parts of a phone.
2. One kind of physics each: ``compute``, ``memory``, ``battery`` (``charging``), ``thermal`` (``thermal_policy``),
   ``memory_pressure``, ``network``, ``availability``; ``eligibility``: may this phone train now?
3. Days: ``day_changes`` is what they answer with; ``flash_day`` (of ``recurring`` intervals and each ``trip``);
   ``time_zone``; recorded ones,
   ``availability_trace``, ``trace_events``, ``trace_formats`` (``flash_trace``, ``fedscale_trace``, ``plain_pickle``).
4. ``attempt``: a device's way through a round, ``flight`` its row; ``exertion``: what it does to battery and skin, and
   heat to it (``training_heat``); ``ledger``: what it has done so far;
   ``population``: all at work.
5. ``device_data``, ``client``, ``device_store``, ``workers`` (``child_process``): what a device computes, keeps,
   and on which process; ``attack``: who harms the training instead.
6. ``open_round``, ``global_model`` (or ``clock_only``), ``simulator``: the walk of a round, from check-in to the next
   model.
7. ``events``, ``run_directory``, ``tables``, ``report``: what a run leaves behind. ``run_comparison`` puts runs side by
   side (``comparison_tables``), ``sweep`` is a grid of them (``sweep_directory``).
8. ``bench``: how long a bundle's steps take on this machine (``bench_process``, ``bench_inputs``), on phones
   (``bench_prediction``), and of the common ``bench_suite`` (``bench_models``); ``bench_report`` is the file,
   ``bench_comparison``, ``bench_tables`` and ``bench_plot`` are made of it.
9. ``calibration``: ``efficiency`` (profiles) fitted to ``measurement`` rows (``efficiency_fit``), which may come from a
   benchmark (``bench_measurement``); ``operator_class`` sorts operators; ``fedscale_rule`` and ``dl4j_layer`` are for
   comparison.
10. ``flower_grid``: a Flower server's messages to phones (``flower_phones``, ``phone_work``), each running the app
    (``flower_app``, ``flower_nodes``), its rows (``flower_exchange``); ``flower_api`` is what that needs of Flower.

Nothing is imported here: importing a module loads what that module needs, and no more.
"""
