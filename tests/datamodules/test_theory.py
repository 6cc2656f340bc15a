"""Generated data: exact counts by enumeration, labels by inverting the generator, correlations by theirs."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from consts import DATASETS
from datamodules import load_data
from datamodules.base import Splits
from datamodules.theory import boolean_circuit, hierarchical_digits, random_hierarchy
from datamodules.theory.boolean_circuit import Level, circuit
from schemas import DataArgs, build_args
from sections.datasets._base import Sizes
from sections.datasets.boolean_circuit import BooleanCircuitArgs
from sections.datasets.hierarchical_digits import COUNT_OF_TWO_LEVELS, HierarchicalDigitsArgs
from sections.datasets.random_hierarchy import RandomHierarchyArgs
from sections.fields import fields_of
from utils import UsageError

GENERATED = [name for name, facts in DATASETS.items() if facts.generated]


def drawn(dataset: str, **settings: object) -> Splits:
    return load_data(DataArgs.build({"dataset": dataset, "num_train_images": 300, "num_test_images": 60} | settings))


def bits_of(images_PHWC: Tensor) -> Tensor:
    return images_PHWC.flatten(1) > 0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dataset", GENERATED)
def test_the_data_seed_decides_everything_and_no_image_is_drawn_twice(dataset: str) -> None:
    first, again, other = drawn(dataset), drawn(dataset), drawn(dataset, data_seed=1)
    for one, two in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(one.images_PHWC, two.images_PHWC) and torch.equal(one.labels_P, two.labels_P)
    assert not torch.equal(first.train.images_PHWC, other.train.images_PHWC)
    images_PD = torch.cat((first.train.images_PHWC, first.test.images_PHWC)).flatten(1)
    assert len(images_PD) == 360 and len(images_PD.unique(dim=0)) == 360
    assert set(images_PD.flatten().tolist()) == {0, 255}
    assert (first.train.num_images, first.test.num_images) == (300, 60)
    assert DataArgs.build({"dataset": dataset}).generated.num_values() == images_PD.shape[1]


# Another value of every setting, and what it needs to have an effect.
OTHERS: dict[str, dict[str, object]] = {
    "num_train_images": {"num_train_images": 299}, "num_test_images": {"num_test_images": 61},
    "data_seed": {"data_seed": 1}, "num_bits": {"num_bits": 31}, "parity_size": {"parity_size": 2},
    "parity_inputs": {"parity_inputs": "mixture"}, "circuit_depth": {"circuit_depth": 5},
    "bit_probability": {"parity_inputs": "biased", "bit_probability": 0.3}, "circuit_gates": {"circuit_gates": "xor"},
    "local_correlation": {"local_correlation": 0.7}, "hierarchy_classes": {"hierarchy_classes": 7},
    "hierarchy_vocabulary": {"hierarchy_vocabulary": 9}, "hierarchy_multiplicity": {"hierarchy_multiplicity": 3},
    "hierarchy_branching": {"hierarchy_branching": 3}, "hierarchy_depth": {"hierarchy_depth": 4},
    "digit_levels": {"digit_levels": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        *(("parity", name) for name in fields_of(Sizes)),
        *((kind.__module__.rpartition(".")[2], name) for kind in DataArgs.GROUPS[1:] for name in fields_of(kind)),
    ],
)
def test_every_setting_changes_what_is_drawn(dataset: str, name: str) -> None:
    other = OTHERS[name]
    before, after = drawn(dataset, **{key: other[key] for key in other if key != name}), drawn(dataset, **other)
    same = [
        one.images_PHWC.shape == two.images_PHWC.shape
        and torch.equal(one.images_PHWC, two.images_PHWC)
        and torch.equal(one.labels_P, two.labels_P)
        for one, two in ((before.train, after.train), (before.test, after.test))
    ]
    assert not all(same)


def test_more_images_than_there_are_likely_ones_are_refused() -> None:
    with pytest.raises(UsageError, match="23040 draws gave 2 different images, and 360 are needed"):
        drawn("boolean_circuit", local_correlation=1.0)


@pytest.mark.parametrize("inputs", ["uniform", "biased", "mixture"])
def test_a_parity_is_one_of_a_few_bits(inputs: str) -> None:
    """Of all sets of three bits, exactly one has this parity on every image."""
    splits = drawn("parity", num_bits=12, parity_inputs=inputs)
    bits_PD, labels_P = bits_of(splits.train.images_PHWC), splits.train.labels_P
    sets = [(a, b, c) for a, b, c in product(range(12), repeat=3) if a < b < c]
    assert [torch.equal(bits_PD[:, chosen].sum(1) % 2, labels_P) for chosen in sets].count(True) == 1


def test_all_strings_of_bits_can_be_asked_for() -> None:
    splits = drawn("parity", num_bits=8, num_train_images=200, num_test_images=56)
    bits_PD = bits_of(torch.cat((splits.train.images_PHWC, splits.test.images_PHWC)))
    assert sorted((bits_PD.long() @ (2 ** torch.arange(8))).tolist()) == list(range(256))


@pytest.mark.parametrize(
    ("inputs", "zeros", "ones"), [("uniform", 1 / 8, 1 / 8), ("mixture", 5 / 16, 5 / 16), ("biased", 0.9**3, 0.1**3)]
)
def test_how_often_the_bits_of_a_parity_are_all_equal(inputs: str, zeros: float, ones: float) -> None:
    splits = drawn("parity", num_train_images=4000, parity_inputs=inputs, bit_probability=0.1, num_bits=40)
    bits_PD, labels_P = bits_of(splits.train.images_PHWC), splits.train.labels_P
    [chosen] = [
        each for each in product(range(40), repeat=3)
        if each[0] < each[1] < each[2] and torch.equal(bits_PD[:20, each].sum(1) % 2, labels_P[:20])
        and torch.equal(bits_PD[:, each].sum(1) % 2, labels_P)
    ]  # fmt: skip
    for count, share in ((0, zeros), (3, ones)):
        found = bits_PD[:, chosen].sum(1) == count
        assert found.float().mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))


GATES = {"AND": (0, 0, "0001"), "OR": (1, 0, "0111"), "NAND": (0, 1, "1110"), "NOR": (1, 1, "1000")}
PAIRS = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("gate", GATES)
def test_truth_tables_of_gates(gate: str) -> None:
    swaps, negates, table = GATES[gate]
    level = Level(False, torch.tensor([bool(swaps)]), torch.tensor([bool(negates)]))
    assert level.outputs_of(PAIRS).flatten().tolist() == [letter == "1" for letter in table]


@pytest.mark.parametrize("negates", [False, True])
def test_truth_tables_of_xor(negates: bool) -> None:
    level = Level(True, torch.tensor([False]), torch.tensor([negates]))
    assert level.outputs_of(PAIRS).flatten().tolist() == [negates, not negates, not negates, negates]


@pytest.mark.parametrize("gates", ["and_or", "xor"])
def test_the_label_is_the_output_of_the_circuit(gates: str) -> None:
    args, same = BooleanCircuitArgs(circuit_gates=gates), generator()
    levels = circuit(args, same)
    images_PHWC, labels_P = boolean_circuit.problem(args, generator()).draw(500)
    bits_PD = bits_of(images_PHWC)
    assert bits_PD.shape == (500, 16)
    for level in reversed(levels):
        bits_PD = level.outputs_of(bits_PD)
    assert torch.equal(bits_PD[:, 0].long(), labels_P)


@pytest.mark.parametrize(
    ("gates", "correlation"),
    [("and_or", None), ("and_or", 0.5), ("and_or", 0.9), ("xor", None), ("xor", 0.3), ("xor", 0.5)],
)
def test_bits_are_correlated_with_the_label_as_the_setting_says(gates: str, correlation: float | None) -> None:
    args = BooleanCircuitArgs(circuit_gates=gates, local_correlation=correlation, circuit_depth=2)
    images_PHWC, labels_P = boolean_circuit.problem(args, generator()).draw(40_000)
    signs_PD, label_P = bits_of(images_PHWC) * 2.0 - 1, labels_P * 2.0 - 1
    found_D = (signs_PD * label_P[:, None]).mean(0) - signs_PD.mean(0) * label_P.mean()
    torch.testing.assert_close(found_D.abs(), torch.full((4,), args.correlation**2), atol=0.02, rtol=0)


@pytest.mark.parametrize("gate", GATES)
def test_pairs_are_uniform_by_default(gate: str) -> None:
    """Each of the pairs that give an output is as likely as the others."""
    swaps, negates, table = GATES[gate]
    level = Level(False, torch.tensor([bool(swaps)]), torch.tensor([bool(negates)]))
    for output in (False, True):
        pairs_PI = level.inputs_of(torch.full((30_000, 1), output), 2 / 3, generator())
        counts = (pairs_PI.long() @ torch.tensor([2, 1])).bincount(minlength=4) / 30_000
        fitting = [letter == str(int(output)) for letter in table]
        expected = torch.tensor(fitting) / sum(fitting)
        torch.testing.assert_close(counts, expected, atol=0.015, rtol=0)


def label_of(symbols: tuple[int, ...], levels: list[Tensor]) -> int | None:
    """The label of a row of symbols, found by undoing the rules from below; None where a tuple is in no rule."""
    for rules_VMS in reversed(levels):
        size = rules_VMS.shape[2]
        origin = {tuple(row.tolist()): symbol for symbol, rows in enumerate(rules_VMS) for row in rows}
        assert len(origin) == rules_VMS.shape[0] * rules_VMS.shape[1]  # all tuples of a level are different
        parts = [symbols[start : start + size] for start in range(0, len(symbols), size)]
        if any(part not in origin for part in parts):
            return None
        symbols = tuple(origin[part] for part in parts)
    return symbols[0]


@pytest.mark.parametrize(
    ("v", "classes", "m", "s", "depth", "count"),
    [(3, 2, 2, 2, 2, 16), (3, 3, 3, 2, 2, 81), (2, 2, 2, 3, 2, 32), (4, 3, 2, 2, 3, 384), (3, 4, 2, 2, 1, 8)],
)
def test_the_random_hierarchy_has_as_many_images_as_the_formula_says(
    v: int, classes: int, m: int, s: int, depth: int, count: int
) -> None:
    """All rows of symbols are tried; those with a label are the ones that are drawn."""
    args = RandomHierarchyArgs(
        hierarchy_vocabulary=v, hierarchy_classes=classes, hierarchy_multiplicity=m, hierarchy_branching=s,
        hierarchy_depth=depth,
    )  # fmt: skip
    assert args.num_inputs() == count
    splits = drawn("random_hierarchy", **args.model_dump(), num_train_images=count - 2, num_test_images=2)
    images_PHWC = torch.cat((splits.train.images_PHWC, splits.test.images_PHWC))
    assert images_PHWC.shape == (count, 1, s**depth, v) and (images_PHWC.sum(3) == 255).all()
    labels = torch.cat((splits.train.labels_P, splits.test.labels_P)).tolist()
    rows = [tuple(row) for row in images_PHWC[:, 0].argmax(2).tolist()]
    levels = random_hierarchy.rules(args, generator())
    expected = {
        row: label for row in product(range(v), repeat=s**depth) if (label := label_of(row, levels)) is not None
    }
    assert dict(zip(rows, labels, strict=True)) == expected
    assert len(expected) == count


def test_patches_of_strokes_are_all_different_so_that_choices_can_be_counted() -> None:
    strokes = hierarchical_digits.STROKES
    patches = [tuple(tile.flatten().tolist()) for stroke in strokes for tile in hierarchical_digits.tiles(stroke)]
    assert len(patches) == len(set(patches))
    maps = hierarchical_digits.strokes_of().flatten(2).tolist()
    assert len({tuple(each) for column in maps for each in column}) == 30
    counts = [
        math.prod(len(hierarchical_digits.tiles(strokes[stroke])) for stroke in each) for one in maps for each in one
    ]
    assert sum(counts) == COUNT_OF_TWO_LEVELS
    fine = hierarchical_digits.fine_patches().flatten(2)
    assert fine.sum(2).tolist() == [[0, 1, 1, 1, 1], [4, 3, 3, 3, 3]] and len(fine.flatten(0, 1).unique(dim=0)) == 10


def test_the_label_of_a_digit_can_be_read_off_its_image() -> None:
    """Level by level: white pixels have three or more white finer ones, a stroke is known by its patch."""
    args = HierarchicalDigitsArgs()
    images_PHWC, labels_P = hierarchical_digits.problem(args, generator()).draw(200)
    assert images_PHWC.shape == (200, 32, 32, 1)
    pixels_PHW = (images_PHWC[..., 0] > 0).unflatten(1, (16, 2)).unflatten(3, (16, 2)).sum((2, 4)) >= 3
    patches_P4444 = pixels_PHW.unflatten(1, (4, 4)).unflatten(3, (4, 4)).transpose(2, 3)
    strokes = hierarchical_digits.STROKES
    known = {
        tuple(tile.flatten().tolist()): place
        for place, stroke in enumerate(strokes)
        for tile in hierarchical_digits.tiles(stroke)
    }
    digits = {
        tuple(each): digit
        for digit, one in enumerate(hierarchical_digits.strokes_of().flatten(2).tolist())
        for each in one
    }
    for patches_4444, label in zip(patches_P4444, labels_P.tolist(), strict=True):
        found = tuple(known[tuple(patch.flatten().tolist())] for row in patches_4444 for patch in row)
        assert digits[found] == label


def test_two_levels_are_what_three_are_made_of() -> None:
    images_PHWC, _ = hierarchical_digits.problem(HierarchicalDigitsArgs(digit_levels=2), generator()).draw(5)
    assert images_PHWC.shape == (5, 16, 16, 1)


def test_what_one_run_saw_is_told_from_what_another_did() -> None:
    from cli import check_same_images

    one, two = (build_args({"dataset": "parity", "data_seed": seed}) for seed in (0, 1))
    check_same_images(one, one)
    with pytest.raises(UsageError, match=r"that run saw parity with .*--data_seed 1 .* but this one parity with"):
        check_same_images(one, two)
