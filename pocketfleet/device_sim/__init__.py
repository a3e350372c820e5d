"""A phone, a fleet of them, and the clock they live on.

Read in this order:

1. ``phone``, ``mix``, ``fleet``: hardware and who has it; ``catalog`` holds the tables.
2. One kind of physics each: ``compute``, ``memory``, ``battery``, ``network``, ``availability`` (``flash_day``,
   ``recurring``); ``eligibility``: may this phone train now?
3. ``attempt``: a device's way through a round; ``ledger``: what it has done so far; ``population``: all at work.
4. ``device_data``, ``client``, ``device_store``, ``workers``: what a device computes, keeps, and on which process.
5. ``global_model``, ``simulator``: the walk of a round, from check-in to the next model.
6. ``events``, ``run_directory``, ``tables``, ``report``: what a run leaves behind.
7. ``bench``: how long a bundle's steps take on this machine (``bench_process``, ``bench_inputs``), on phones
   (``bench_prediction``), and of the common ``bench_suite`` (``bench_models``); ``bench_report`` is the file,
   ``bench_comparison``, ``bench_tables`` and ``bench_plot`` are made of it.

Nothing is imported here: importing a module loads what that module needs, and no more.
"""
