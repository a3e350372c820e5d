import subprocess
import sys

import pytest

from pocketfleet import Bundle
from pocketfleet.device_sim.memory_limit import is_out_of_memory
from pocketfleet.errors import InputError

MEGABYTES = 10**6


# In a process of its own, of which nothing is given back meanwhile.
_ALONE = """
import resource
import numpy as np
import pytest
import torch
from pocketfleet.device_sim.memory_limit import is_out_of_memory, memory_limit
from pocketfleet.device_sim.process_memory import data_bytes

MEGABYTES = 10**6
before = resource.getrlimit(resource.RLIMIT_DATA)
with memory_limit(60 * MEGABYTES, above_bytes=data_bytes()):
    assert np.ones(10 * MEGABYTES // 8).sum() > 0.0
    with pytest.raises(MemoryError) as refused:
        np.ones(100 * MEGABYTES // 8)
    assert is_out_of_memory(refused.value)
    with pytest.raises(RuntimeError) as torchs:
        torch.ones(100 * MEGABYTES // 4)
    assert is_out_of_memory(torchs.value)
assert resource.getrlimit(resource.RLIMIT_DATA) == before
assert len(np.ones(100 * MEGABYTES // 8)) > 0
# It counts from what the process held once.
with pytest.raises(MemoryError), memory_limit(10 * MEGABYTES, above_bytes=data_bytes() - 100 * MEGABYTES):
    np.ones(200 * MEGABYTES // 8)
"""


def test_more_than_the_phone_has_free_is_refused_and_the_limit_goes() -> None:
    subprocess.run([sys.executable, "-c", _ALONE], check=True)


_RUN = """
import sys
from pathlib import Path
from pocketfleet.device_sim.bench_inputs import step_inputs
from pocketfleet.device_sim.memory_limit import is_out_of_memory, memory_limit
from pocketfleet.device_sim.process_memory import data_bytes
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.loaded_runtime import load_runtime
from pocketfleet.export.session import open_session

runtime, bundle = sys.argv[1], Bundle.load(Path(sys.argv[2]))
load_runtime(runtime)
inputs, held = step_inputs(bundle, batch=bundle.max_batch), data_bytes()
for megabytes in (4, 40):
    try:
        with memory_limit(megabytes * 1e6, above_bytes=held):
            inputs.run(open_session(bundle, runtime))
        print("trained")
    except Exception as error:
        print("refused" if is_out_of_memory(error) else repr(error))
"""


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_a_runtime_that_is_refused_memory_says_so_and_trains_with_more(mnist_bundle: Bundle, runtime: str) -> None:
    # LeNet's step at 16 images takes some 6 MB (ExecuTorch) and 10 MB; in a process of its own, whose heap holds
    # nothing that was given back.
    command = [sys.executable, "-c", _RUN, runtime, str(mnist_bundle.path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["refused", "trained"]


def test_other_errors_are_others() -> None:
    error = InputError("the task's model fails on a batch")
    error.__cause__ = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    assert is_out_of_memory(error)
    error.__cause__ = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(error)
