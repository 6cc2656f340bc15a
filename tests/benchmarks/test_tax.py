"""How long a program takes to start, and to say its first line."""

from __future__ import annotations

import pytest

from benchmarks import tax


def test_a_program_is_waited_for_or_killed_after_its_first_line(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = "print(1, flush=True); import time; time.sleep({}); open('end', 'w')"
    assert tax.start(["-c", program.format(60)], only_first_line=True) > 0  # else the test's own limit ends it
    assert not (tmp_path / "end").exists()
    assert tax.start(["-c", program.format(0)]) > 0
    assert (tmp_path / "end").exists()


def test_a_program_that_fails_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        tax.start(["-c", "raise SystemExit(3)"])
