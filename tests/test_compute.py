"""The machine's settings: what the environment variables accept, and how large a batch is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d4m import environment
from d4m.compute import Compute
from d4m.errors import D4MError
from d4m.pipeline import Pipeline
from d4m.reports.cost.estimate import estimate_cost


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Unset every variable that chooses the machine's settings."""
    for name in ("DEVICE", "BATCH_SIZE", "MEMORY", "COMPILE", "STUDENTS_TOGETHER"):
        monkeypatch.delenv(f"D4M_{name}", raising=False)


@pytest.mark.parametrize(
    ("size_px", "batch_size"),
    [
        (8, 256),  # 65,536 would fit; the limit is 256
        (28, 256),
        (128, 256),  # 16 * 512**2 / 128**2, exactly
        (129, 252),  # 252.04
        (256, 64),
        (512, 16),
        (1024, 4),
        (2048, 1),
        (2049, 1),  # 0.99: one image is always encoded
        (4096, 1),
    ],
)
def test_a_batch_to_encode_has_about_four_million_pixels(size_px, batch_size):
    assert Compute("cpu").encode_batch_size(size_px) == batch_size


@pytest.mark.parametrize("asked", [1, 3, 1000])
def test_a_batch_size_that_was_asked_for_is_used_at_every_image_size(asked):
    compute = Compute("cpu", batch_size=asked)
    assert [compute.encode_batch_size(size_px) for size_px in (8, 512, 4096)] == [asked] * 3


def test_without_environment_variables_the_defaults_are_used():
    compute = environment.compute()
    assert compute == Compute("auto", None, "full")
    assert compute.encode_batch_size(512) == 16


def test_auto_is_the_gpu_where_torch_has_one():
    assert Compute().device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("visible", "device"),
    [(None, "cuda"), ("1,0", "cuda"), ("", "cpu"), ("-1", "cpu"), ("NoDevFiles", "cpu")],
)
def test_auto_is_the_cpu_where_gpus_are_hidden(monkeypatch, visible, device):
    monkeypatch.setattr(Path, "exists", lambda _: True)  # so the driver's file exists, too
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Compute().device == device


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:11", "mps", "xpu", "xpu:1"])
def test_a_named_device_is_used_as_named_and_torch_knows_it(monkeypatch, device):
    monkeypatch.setenv("D4M_DEVICE", device)
    found = environment.compute().device
    assert found == device
    assert str(torch.device(found)) == device


@pytest.mark.parametrize("device", ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda: 0", "cpu\n", "c"])
def test_an_unknown_device_is_refused(monkeypatch, device):
    monkeypatch.setenv("D4M_DEVICE", device)
    message = (
        f"D4M_DEVICE: wanted auto, cpu, cuda, cuda:<number>, mps, xpu or xpu:<number>, found "
        f"{device!r}"
    )
    with pytest.raises(D4MError, match=f"^{re.escape(message)}$"):
        environment.compute()


@pytest.mark.parametrize("device", ["cuda:99", "xpu:99"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_computed(workspace, device):
    Compute("cpu").check_device()
    pipeline = Pipeline(workspace.pipeline().recipe, workspace.store, Compute(device))
    message = f"D4M_DEVICE: wanted a device of this machine, found '{device}'"
    with pytest.raises(D4MError, match=message):
        pipeline.run_stage("real_images")
    with pytest.raises(D4MError, match=message):
        estimate_cost(pipeline.look_ahead())


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("12", 12), ("007", 7)])
def test_a_batch_size_is_a_whole_number(monkeypatch, text, number):
    monkeypatch.setenv("D4M_BATCH_SIZE", text)
    assert environment.compute() == Compute("auto", number)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"),
        ("", "''"),
        ("-1", "'-1'"),
        ("1.5", "'1.5'"),
        (" 4", "' 4'"),
        ("four", "'four'"),
        ("²", "'²'"),
    ],
)
def test_an_invalid_batch_size_is_refused(monkeypatch, text, shown):
    monkeypatch.setenv("D4M_BATCH_SIZE", text)
    message = f"D4M_BATCH_SIZE: wanted a whole number of at least 1, found {shown}"
    with pytest.raises(D4MError, match=f"^{re.escape(message)}$"):
        environment.compute()


@pytest.mark.parametrize("memory", ["full", "slicing", "offload"])
def test_the_memory_mode_is_one_of_three_words(monkeypatch, memory):
    monkeypatch.setenv("D4M_MEMORY", memory)
    assert environment.compute().memory == memory


@pytest.mark.parametrize("memory", ["", "Full", "sliced"])
def test_an_unknown_memory_mode_is_refused(monkeypatch, memory):
    monkeypatch.setenv("D4M_MEMORY", memory)
    message = f"D4M_MEMORY: wanted one of ('full', 'slicing', 'offload'), found {memory!r}"
    with pytest.raises(D4MError, match=f"^{re.escape(message)}$"):
        environment.compute()


@pytest.mark.parametrize("compiler", ["", "yes", "Inductor"])
def test_an_unknown_compiler_is_refused(monkeypatch, compiler):
    monkeypatch.setenv("D4M_COMPILE", compiler)
    message = f"D4M_COMPILE: wanted one of ('inductor', 'cudagraphs', 'eager'), found {compiler!r}"
    with pytest.raises(D4MError, match=f"^{re.escape(message)}$"):
        environment.compute()


def test_all_are_read_together(monkeypatch):
    monkeypatch.setenv("D4M_DEVICE", "cuda:1")
    monkeypatch.setenv("D4M_BATCH_SIZE", "24")
    monkeypatch.setenv("D4M_MEMORY", "offload")
    monkeypatch.setenv("D4M_COMPILE", "inductor")
    monkeypatch.setenv("D4M_STUDENTS_TOGETHER", "9")
    assert environment.compute() == Compute("cuda:1", 24, "offload", "inductor", 9)


@pytest.mark.parametrize(
    ("device", "asked", "most"),
    [("cpu", None, 1), ("mps", None, 1), ("cuda:1", None, 32), ("cpu", 9, 9), ("cuda", 1, 1)],
)
def test_students_are_trained_at_once_on_a_gpu_or_where_it_is_asked_for(device, asked, most):
    assert Compute(device, students_together=asked).most_together == most


def test_no_student_at_a_time_is_refused():
    message = "D4M_STUDENTS_TOGETHER: wanted a whole number of at least 1, found 0"
    with pytest.raises(D4MError, match=f"^{message}$"):
        Compute(students_together=0)


def _numbers(script: str, **own_choice: str) -> list[int]:
    """Numbers that a script prints in a process whose allocator is chosen here alone."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=plain | own_choice, capture_output=True, text=True, check=True
    )
    return [int(text) for text in done.stdout.split()]


_FAULTS = """
import resource
from d4m.compute import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * 64_000_000  # bytes, above the largest threshold for mappings
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
keep_freed_memory()
faults()
print(by_default, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
@pytest.mark.parametrize("own_choice", [{}, {"MALLOC_TOP_PAD_": "4096"}])
def test_freed_memory_is_handed_out_again_unless_the_environment_chooses(own_choice):
    by_default, kept = _numbers(_FAULTS, **own_choice)
    assert by_default > 20 * 1000  # at least a fault per 64 kB, whatever the size of a page
    if own_choice:
        assert kept > by_default / 2
    else:
        assert kept < by_default / 100


_FREED_BY_A_THREAD = """
import resource
from threading import Thread
from d4m.compute import keep_freed_memory

def fill():
    blocks = [b"x" * 100_000 for _ in range(640)]

keep_freed_memory()
thread = Thread(target=fill)
thread.start()
thread.join()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_the_memory_that_a_thread_has_freed_is_handed_out_to_others():
    [faults] = _numbers(_FREED_BY_A_THREAD)
    assert faults < 100  # of about 1,000 pages of 64 kB, or 16,000 of 4 kB


_GAPS = """
import os
from pathlib import Path
from d4m.compute import keep_freed_memory, return_freed_memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

keep_freed_memory()
blocks = [(b"x" * 1_000_000, b"y" * 1000) for _ in range(200)]
small = [each for _, each in blocks]  # between the large ones, so that no end of the heap is free
del blocks
before = resident_mib()
return_freed_memory()
print(before - resident_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
@pytest.mark.parametrize("own_choice", [{}, {"MALLOC_MMAP_MAX_": "0"}])  # which leaves gaps, too
def test_freed_memory_is_returned_when_it_is_asked_for_unless_the_environment_chooses(own_choice):
    [returned_mib] = _numbers(_GAPS, **own_choice)
    assert (returned_mib < 10) if own_choice else (returned_mib > 150)  # of 190 MiB
