"""A signal before training begins."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# As extensions in C do, the import drops whatever is raised in it.
MODULE = """
import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(60)
except BaseException:
    pass
raise RuntimeError("half imported")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_an_import_ends_the_process_with_one_line(number: int, code: int, tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(MODULE.format(number=int(number)))
    script = "from engine.run.signals import signals_end_it\nwith signals_end_it('stopped'):\n    import swallows"
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "stopped\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_elsewhere_lets_what_is_open_be_closed(number: int, code: int) -> None:
    script = f"""
import os, sys
from engine.run.signals import signals_end_it
try:
    with signals_end_it("stopped"):
        try:
            os.kill(os.getpid(), {int(number)})
        finally:
            print("closed")
except KeyboardInterrupt as stop:
    sys.exit(stop.args[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (code, "closed\n", "")
