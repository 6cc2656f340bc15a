"""Losses of twenty steps of every method, in float64, against the file that a reviewed run wrote.

A change that moves them changes what the method computes. Write those of a rule or a task anew with
``make golden NAME=dgl`` and say in the commit why the numbers moved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import CASES, PHASED, make_batch, make_method

FILE = Path(__file__).with_name("golden.json")
TRACED = [*CASES, *PHASED]
# What processors of two makers differ by after twenty steps: 3e-9 at most, and where matrices are made orthonormal in
# float32, before the method is float64, 6e-7.
TOLERANCE, FACTORISED = 1e-8, dict.fromkeys(("foton", "foton frozen", "dfa low_rank"), 2e-6)


def trace(case: str) -> list[list[float | None]]:
    """Loss of every block at every one of twenty steps."""
    method, batch = make_method(case), make_batch()
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rows = []
    for step in range(20):
        method.enter_phase(step * method.phases.count // 20)
        output = method.fill_grads(batch)
        optimizer.step()
        optimizer.zero_grad()
        rows.append([None if loss is None else loss.item() for loss in output.losses])
    return rows


@pytest.mark.parametrize("case", TRACED)
def test_losses_are_the_golden_ones(case: str) -> None:
    golden = json.loads(FILE.read_text()).get(case)
    assert golden is not None, f"no golden trace of {case!r}; write it with: make golden NAME={case.split()[-1]}"
    tolerance = FACTORISED.get(case, TOLERANCE)
    for step, (row, expected) in enumerate(zip(trace(case), golden, strict=True)):
        for index, (loss, value) in enumerate(zip(row, expected, strict=True)):
            assert loss == (value if value is None else pytest.approx(value, rel=tolerance)), (step, index)


def write(name: str = "") -> None:
    """Write the traces of the cases that have the rule or task ``name``, and drop those that are no cases."""
    golden = json.loads(FILE.read_text())
    chosen = [case for case in TRACED if name in case.split()]
    if not chosen:
        sys.exit(
            f"no case has {name!r}; there are {', '.join(sorted({word for case in TRACED for word in case.split()}))}"
        )
    golden |= {case: trace(case) for case in chosen}
    FILE.write_text(json.dumps({case: golden[case] for case in TRACED if case in golden}, indent=1) + "\n")
    print(f"written: {', '.join(chosen)}")


if __name__ == "__main__":
    write(*sys.argv[1:])
