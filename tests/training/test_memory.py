import platform
import subprocess
import sys

import pytest

from percoin.training.memory import keep_freed_memory

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
    assert page_faults("assert keep_freed_memory()") * 4 < page_faults("")


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
