from torch import nn

from pocketfleet.device_sim.engine_plan import candidates, chunk_size

CONVOLVING = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))


def test_what_is_tried_depends_on_the_model_and_the_cohort() -> None:
    plain = nn.Linear(3, 1)
    assert candidates(plain, cohort=7, onnx=True) == ("each",)
    assert candidates(plain, cohort=8, onnx=True) == ("each", "batched")
    assert candidates(CONVOLVING, cohort=2, onnx=True) == ("each", "each_channels_last", "each_onnx")
    assert candidates(CONVOLVING, cohort=50, onnx=False) == (
        *("each", "each_channels_last", "batched", "batched_unfolded"),
    )
    assert candidates(nn.Conv1d(1, 1, 3), cohort=50, onnx=True) == ("each", "each_onnx", "batched")


def test_chunks_do_not_depend_on_processes_and_leave_work_for_two() -> None:
    assert [chunk_size("batched", 256)(devices) for devices in (1, 40, 100, 400, 1000)] == [32, 32, 50, 200, 256]
    assert [chunk_size("batched", 16)(devices) for devices in (10, 1000)] == [16, 16]
    assert [chunk_size("each", 256)(devices) for devices in (1, 16, 17, 50, 1000)] == [1, 1, 2, 4, 8]
