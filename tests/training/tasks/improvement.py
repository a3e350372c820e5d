"""Whether a task can be learnt: its loss on the test examples before and after a few plain steps."""

import torch

from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.feature_scaling import FeatureSums, frozen_scaling, has_scaling
from pocketfleet.training.task import Task, check_task, initial_model, task_examples

__all__ = ["metric_before_and_after"]


def metric_before_and_after(task: Task, *, steps: int, learning_rate: float) -> tuple[float, float]:
    """The headline's mean before and after ``steps`` of 16 examples, by torch's own SGD with momentum 0.9."""
    model, train, test = initial_model(task, seed=0), task_examples(task, "train"), task_examples(task, "test")
    check_task(task, model, train)
    if has_scaling(model):
        model.load_state_dict(frozen_scaling(model, [FeatureSums.of(train.x)]), strict=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)

    def headline() -> float:
        with torch.no_grad():
            return float(next(iter(task.metrics(model(test.x), test.y).values())).mean())

    before = headline()
    for step in range(steps):
        rows = (uniform(draw_key(0, "improvement", step), 16) * len(train)).astype("int64")
        batch = train.take(torch.from_numpy(rows))
        optimizer.zero_grad()
        task.loss(model(batch.x), batch.y).mean().backward()
        optimizer.step()
    return before, headline()
