"""A phone, a fleet of them, and the clock they live on.

Read in this order:

1. ``phone``, ``mix``, ``fleet``: hardware and who has it; ``catalog`` holds the tables.
2. One kind of physics each: ``compute``, ``memory``, ``battery``, ``network``, ``availability`` (``flash_day``,
   ``recurring``); ``eligibility``: may this phone train now?
3. ``attempt``: a device's way through a round; ``ledger``: what it has done so far; ``population``: all at work.
4. ``device_data``, ``client``, ``device_store``, ``workers``: what a device computes, keeps, and on which process.
5. ``global_model``, ``simulator``: the walk of a round, from check-in to the next model.
6. ``events``, ``run_directory``, ``tables``, ``report``: what a run leaves behind.

Nothing is imported here: importing a module loads what that module needs, and no more.
"""
