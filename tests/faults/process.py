"""Runs in processes of their own, so that a fault can be real: a kill, a signal, a limit, a full disk.

They are forked from a server that has torch loaded (`multiprocessing`'s forkserver): starting Python anew for each
would cost five seconds a run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from schemas import method_sections
from tests.engine.conftest import SMALL as FLAGS

ROOT = Path(__file__).parent.parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["main", "engine.trainer", "reports", "datamodules.digits", "wandb"])
SMALL = [*FLAGS, "--model", "VGGs", "--mlp_hidden_dim", "16"]
STEPS_PER_EPOCH, NUM_STEPS = 5, 15
WITHOUT_CLASSIFIER = {f"--{name}" for name, section in method_sections().items() if not section.CLASSIFIES}


def small(words: list[str]) -> list[str]:
    """The words of a small run with ``words``; a rule without a classifier has no width for one."""
    return [*(SMALL[:-2] if WITHOUT_CLASSIFIER & {*words} else SMALL), *words]


Fault = Callable[[], object]


@dataclass(frozen=True)
class Run:
    """A command that runs, or ran, in a process of its own.

    Attributes:
        process: the process.
        out: file with what it wrote to stdout.
        err: the same of stderr.
    """

    process: ForkServerProcess
    out: Path
    err: Path

    def exit_code(self) -> int:
        """Wait for its end; the number of the signal, negative, if it was killed."""
        self.process.join()  # the limit is that of the test
        assert self.process.exitcode is not None
        return self.process.exitcode

    def errors(self) -> list[str]:
        """The lines on stderr."""
        return self.err.read_text().splitlines()

    def warnings(self, words: str) -> int:
        """How many lines on stdout hold ``words``."""
        return sum(words in line for line in self.out.read_text().splitlines())


def start(words: Sequence[str], folder: Path, fault: Fault | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Start ``main.py`` with ``words`` in ``folder``; ``fault`` is called in the process before it."""
    number = len(list(folder.glob("*.out")))
    run_files = folder / f"{number}.out", folder / f"{number}.err"
    for path in run_files:
        path.touch()
    process = CONTEXT.Process(target=_child, args=(list(words), folder, *run_files, fault, dict(env or {})))
    process.start()
    return Run(process, *run_files)


def finish(words: Sequence[str], folder: Path, fault: Fault | None = None, env: Mapping[str, str] | None = None) -> Run:
    """`start`, and wait for the end."""
    run = start(words, folder, fault, env)
    run.exit_code()
    return run


def _child(words: list[str], folder: Path, out: Path, err: Path, fault: Fault | None, env: Mapping[str, str]) -> None:
    os.setsid()  # a group of its own, as a shell gives a command: a terminal's Ctrl-C goes to the whole group
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.pop("WANDB_SERVICE", None)  # of a run in the tests' own process, which writes below another folder
    os.environ.update(env)
    import torch

    import main
    import reports

    torch.set_num_threads(1)
    reports.refresh = lambda folder: None  # pictures are two thirds of so short a run; a fault may bring them back
    if fault is not None:
        fault()
    sys.exit(main.main(words))
