"""What a step frees on a CPU stays with the process for the next one."""

import platform

import pytest

ALLOCATE = """
import resource, sys
import torch
from pipelines.train.engine.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    parts = [torch.ones(12 * 2**20) for _ in range(3)]  # 48 MB each: always mapped unless told otherwise
    return sum(float(part[0]) for part in parts)

told = keep_freed_memory() if sys.argv[1:] else None
for _ in range(10):
    step()
before = faults()
for _ in range(10):
    step()
print(told, faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_is_not_asked_for_anew(run_python):
    plain = run_python(ALLOCATE).stdout.split()
    kept = run_python("import sys; sys.argv.append('kept')\n" + ALLOCATE).stdout.split()
    assert plain[0] == "None" and kept[0] == "True"
    assert int(kept[1]) < int(plain[1]) / 20, (plain, kept)


STEPS = """
import resource, sys, threading
from pipelines.bench.engine_steps import EngineSteps, alone
from pipelines.config import Config
from tests.train_runs import tiny_values

bench = EngineSteps(alone(Config.model_validate(tiny_values()), accumulation=4))

def faults():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

def train():
    for _ in range(5):
        bench.step()
    before = faults()
    for _ in range(5):
        bench.step()
    print(faults() - before, bench.parameters()["trained_parameters"] * 4 // resource.getpagesize())

thread = threading.Thread(target=train)  # as Ray Train calls the loop
thread.start()
thread.join()
bench.engine.close()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_nor_in_a_thread(run_code):
    """There glibc keeps no block over 64 MiB, such as a buffer for the gradients that was too large."""
    found = run_code(STEPS)
    faults, pages = map(int, found.stdout.split()[-2:])
    assert faults < 5 * 4 * pages / 10, found
