import platform
import subprocess
import sys

import pytest
import torch

from percoin.errors import TrainingError
from percoin.training.memory import keep_freed_memory, memory_errors

# Frees and asks for 8 MB again and again; prints how often the kernel had to hand out a page.
CHURN = """
import resource, torch
from percoin.training.memory import keep_freed_memory
{call}
for _ in range(3):
    tensors = [torch.ones(2_000_000) for _ in range(4)]
    del tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    tensors = [torch.ones(2_000_000) for _ in range(4)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(call: str) -> int:
    script = CHURN.format(call=call)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_a_batch_frees_serves_the_next_one():
    # Handed back and asked for anew it is thousands of pages: 7,812 where it was measured. Where a
    # process happens to have no free place that is long enough, one array more is handed out.
    assert any(page_faults("assert keep_freed_memory()") < 50 for _ in range(3))


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 5 bytes"), "5 b"),
        (RuntimeError("std::bad_alloc\nmore lines"), "std::bad_alloc"),
        (torch.OutOfMemoryError("full"), "full"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "libtorch_cpu"),
        (OSError(12, "Cannot allocate memory"), "Cannot allocate memory"),
        (RuntimeError("out of memory " + 1000 * "x"), r"x\.\.\."),
    ],
)
def test_memory_that_ran_out_is_one_line_that_says_so(error, reason):
    with (
        pytest.raises(TrainingError, match=rf"^BTCUSDT 15m: memory ran out \(.*{reason}") as caught,
        memory_errors("BTCUSDT", "15m"),
    ):
        raise error
    assert "give it more memory, or use a smaller batch_size" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(2, "gone"), KeyError(1)])
def test_other_errors_are_left_as_they_are(error):
    with pytest.raises(type(error)) as caught, memory_errors("BTCUSDT", "15m"):
        raise error
    assert caught.value is error


def test_an_allocation_that_cannot_be_had_is_told_by_torch_itself():
    with pytest.raises(TrainingError, match="memory ran out"), memory_errors("BTCUSDT", "15m"):
        torch.empty(2**55, dtype=torch.uint8)
