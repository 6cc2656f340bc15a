"""What is set up once for a device; memory that is freed stays; compiled parts compute what eager ones do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch._dynamo
import torch._functorch.config
from torch import nn

from engine import devices
from engine.devices import (
    CUBLAS_WORKSPACE,
    autocast,
    check_precision,
    choose_precision,
    compile_blocks,
    tf32_flags,
    tf32_obstacle,
    use_device,
)
from tests.conftest import gradients, make_batch, make_method
from utils import UsageError

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
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fill()
print(min(faults() for _ in range(4)))  # the heap may grow for a few rounds, until it has a place for all
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


STRICT, WIDE = {"matmul": False, "convolution": False}, {"matmul": True, "convolution": True}


@pytest.fixture
def torchs_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a new process: convolutions in TF32, nothing deterministic; as it was again at the end."""
    before = tf32_flags()
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.delenv(CUBLAS_WORKSPACE[0], raising=False)
    devices._set_tf32(matmul=False, convolution=True)
    yield
    devices._set_tf32(**before)
    devices.set_determinism(False)


def newer_flags() -> set[str]:
    """What the newer interface says of products, convolutions and recurrent layers; both must agree."""
    own = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    return {"tf32" if part.fp32_precision == "tf32" else "fp32" for part in own}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_float32_is_tf32_where_it_was_asked_for_and_nowhere_else(precision: str, torchs_defaults: None) -> None:
    device = use_device("cpu")
    assert (tf32_flags(), newer_flags()) == (STRICT, {"fp32"})
    with autocast(device, precision):
        wanted = (WIDE, {"tf32"}) if precision == "tf32" else (STRICT, {"fp32"})
        assert (tf32_flags(), newer_flags()) == wanted
        assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
    assert (tf32_flags(), newer_flags()) == (STRICT, {"fp32"})


def test_an_error_inside_leaves_float32_as_it_is_outside(torchs_defaults: None) -> None:
    device = use_device("cpu")
    with pytest.raises(ZeroDivisionError), autocast(device, "tf32"):
        1 / 0  # noqa: B018
    assert tf32_flags() == STRICT


class FakeCuda:
    """Some GPUs, and what was asked of them in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (8, 0), count: int = 2) -> None:
        self.calls: list[object] = []
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: count,
            "get_device_capability": lambda device: capability,
            "get_device_name": lambda device: "NVIDIA X",
            "set_device": lambda device: self.calls.append(
                (
                    "set_device",
                    device,
                    torch.are_deterministic_algorithms_enabled(),
                    tf32_flags(),
                    os.environ.get(CUBLAS_WORKSPACE[0]),
                )
            ),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_gpu_becomes_the_current_one_when_all_is_set(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch, torchs_defaults: None
) -> None:
    fake = FakeCuda(monkeypatch)
    device = use_device("cuda:1", deterministic=deterministic)
    assert device == torch.device("cuda:1")
    workspace = CUBLAS_WORKSPACE[1] if deterministic else None
    assert fake.calls == [("set_device", device, deterministic, STRICT, workspace)]
    assert torch.backends.cudnn.benchmark == (not deterministic)


@pytest.mark.parametrize(
    ("capability", "override", "said"),
    [
        ((9, 0), None, ""),
        ((8, 0), "1", ""),
        ((8, 0), "0", "NVIDIA_TF32_OVERRIDE=0 switches TF32 off"),
        ((7, 5), None, "NVIDIA X has compute capability 7.5, below 8.0"),
    ],
)
def test_tf32_is_for_gpus_that_have_it(
    capability: tuple[int, int], override: str | None, said: str,
    monkeypatch: pytest.MonkeyPatch, torchs_defaults: None,
) -> None:  # fmt: skip
    FakeCuda(monkeypatch, capability)
    if override is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    device = torch.device("cuda:0")
    assert tf32_obstacle(device) == said
    check_precision(device, "fp32")
    if said:
        with pytest.raises(UsageError, match=rf"^--precision tf32: {said}; allowed on cuda:0 is auto, fp32 or bf16$"):
            check_precision(device, "tf32")
    else:
        check_precision(device, "tf32")


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
