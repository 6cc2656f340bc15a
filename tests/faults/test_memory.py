"""Out of memory: one line, with a batch size that does fit."""

from __future__ import annotations

import re
import resource
from functools import partial
from pathlib import Path

import pytest
import torch

from engine import memory
from tests.conftest import make_batch, make_method
from tests.faults.conftest import only_run, status
from tests.faults.process import finish

WORDS = [*"--dataset digits --epochs 1 --device cpu --precision fp32 --wandb disabled".split(), "--batch_size"]  # noqa: SIM905


def limit_memory(num_bytes: int) -> None:
    """From now on this process can get ``num_bytes`` more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, used + num_bytes))


@pytest.mark.faults
@pytest.mark.parametrize("method", ["bp", "dgl"])
def test_the_batch_size_that_is_named_does_fit(method: str, tmp_path: Path) -> None:
    scarce = partial(limit_memory, 600 * 2**20)
    run = finish([*WORDS, "1400", f"--{method}"], tmp_path, scarce)
    [line] = run.errors()
    assert run.exit_code() == 1
    named = re.fullmatch(r".* out of memory with --batch_size 1400: .*; --batch_size (\d+) should fit", line)
    assert named, line
    assert status(only_run(tmp_path)) == "failed"
    again = finish([*WORDS, named[1], f"--{method}"], tmp_path, scarce)
    assert (again.exit_code(), again.errors()) == (0, [])
    assert int(named[1]) > 30  # not merely a number that always fits


def test_activations_grow_with_the_batch_and_local_methods_hold_fewer() -> None:
    def measure(name: str, num_images: int) -> int:
        return memory.activation_bytes(make_method(name), make_batch(num_images=num_images), "fp32")

    for name in ("bp", "dgl"):
        few, many = measure(name, 6), measure(name, 24)
        assert 3.5 * few < many < 4.05 * few
    assert measure("dgl", 24) < measure("bp", 24)


def test_measuring_leaves_no_gradient() -> None:
    method = make_method("bp")
    memory.activation_bytes(method, make_batch(), "fp32")
    assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert memory.is_out_of_memory(error) == expected
