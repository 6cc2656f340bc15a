"""How often plots are refreshed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.run import log as run_log
from engine.run.folder import RunFolder


@pytest.mark.parametrize(("epoch_s", "draw_s"), [(0.2, 0.7), (3.0, 2.0), (70.0, 1.0), (1.0, 9.0)])
def test_drawing_takes_a_fiftieth_of_the_training_at_most(
    epoch_s: float, draw_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, drawn=0)
    monkeypatch.setattr(run_log, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def draw() -> None:
        clock.now += max(draw_s, run_log._FIRST_PLOT_S) if not clock.drawn else draw_s
        clock.drawn += 1

    log = run_log.RunLog(RunFolder(tmp_path), [], draw, print)
    trained = 0.0
    while trained < 4000:
        clock.now += epoch_s
        trained += epoch_s
        log.draw()
        if draw_s <= run_log._FIRST_PLOT_S:  # what the very first one takes cannot be known before
            assert clock.now - trained <= 0.021 * trained
    assert clock.now - trained <= 0.021 * trained
    assert clock.drawn >= 4
    log.close(0, {})
