"""Memory that is freed stays with the process; compiled parts compute what eager ones do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch._dynamo
import torch._functorch.config
from torch import nn

from engine.devices import choose_precision, compile_blocks
from tests.conftest import gradients, make_batch, make_method

PROGRAM = """
import resource, sys
import torch
if sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
from engine.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def fill():
    for _ in range(4):
        torch.ones(2**24)
fill()
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*words: str, **environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True, env=clean | environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again_without_a_page_fault() -> None:
    usual = _faults("do not")
    assert usual >= 4 * 2**26 / 2**21  # pages may be huge
    assert _faults("keep") < usual / 5


def test_what_the_user_set_up_is_left_alone() -> None:
    assert _faults("keep", MALLOC_MMAP_THRESHOLD_="65536") > _faults("do not", MALLOC_MMAP_THRESHOLD_="65536") / 2


def test_a_process_whose_memory_is_limited_gives_it_back() -> None:
    assert _faults("keep", "limited") > _faults("do not", "limited") / 2


@pytest.mark.parametrize("case", ["critic", "dgl overlap"])
def test_compiled_parts_can_go_backward_twice(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With autograd compiled as for --compile, and kernels left eager, which needs no compiler."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part: original(part, backend="aot_eager"))
    eager, compiled = make_method(case), make_method(case)
    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=True), torch._dynamo.config.patch(recompile_limit=8):
        compile_blocks(compiled, torch.device("cuda"))  # the device is only asked whether a compiler is needed
        for method in (eager, compiled):
            method.fill_grads(make_batch())
    torch._dynamo.reset()
    for key, gradient in gradients(eager).items():
        torch.testing.assert_close(gradients(compiled)[key], gradient, msg=key)


@pytest.mark.parametrize(
    ("capability", "precision", "reason"),
    [
        ((9, 0), "bf16", "NVIDIA X has compute capability 9.0"),
        ((8, 0), "bf16", "NVIDIA X has compute capability 8.0"),
        ((7, 5), "fp32", "NVIDIA X has compute capability 7.5, below 8.0"),
    ],
)
def test_auto_precision_follows_a_gpus_capability(
    capability: tuple[int, int], precision: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    assert choose_precision(torch.device("cuda:1")) == (precision, reason)


@pytest.mark.parametrize(
    ("avx", "amx", "expected"),
    [
        (True, False, ("bf16", "this CPU has AVX512-BF16")),
        (True, True, ("bf16", "this CPU has AVX512-BF16 and AMX")),
        (False, False, ("fp32", "this CPU has neither AVX512-BF16 nor AMX")),
    ],
)
def test_auto_precision_follows_a_cpus_instructions(
    avx: bool, amx: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_precision(torch.device("cpu")) == expected
