"""Grids show targets over reconstructions in [0, 255], and looking changes nothing."""

from __future__ import annotations

import copy

import torch

from datamodules.base import Batch
from diagnostics.reconstructions import reconstruction_grids
from methods._base import Method
from tests.conftest import make_method, make_spec

TILE, BORDER = 96, 4


def decoding_method() -> Method:
    return make_method("dgl ssl shift alone").float()


def make_batch() -> Batch:
    """Images whose pixels lie in [0, 1] before normalisation with mean and deviation 0.5."""
    return Batch(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1, torch.arange(4))


def test_targets_stand_over_reconstructions() -> None:
    method, batch = decoding_method(), make_batch()
    grids = reconstruction_grids(method, batch, make_spec())
    assert sorted(grids) == [0, 1]
    assert grids[0].dtype == torch.uint8
    assert grids[0].shape == (2 * (TILE + BORDER) + BORDER, 4 * (TILE + BORDER) + BORDER, 3)
    for column in range(4):
        left = BORDER + column * (TILE + BORDER)
        tile_HWC = grids[0][BORDER : BORDER + TILE : 12, left : left + TILE : 12]
        expected_CHW = ((batch.x_BCHW[column].roll((4, 4), (1, 2)) * 0.5 + 0.5) * 255).round()
        assert torch.equal(tile_HWC.permute(2, 0, 1), expected_CHW.byte())


def test_what_is_drawn_beyond_black_and_white_is_cut_off() -> None:
    method = decoding_method()
    with torch.no_grad():
        method.ssl.heads["block_00"][-1].bias.fill_(1e6)
    grid = reconstruction_grids(method, make_batch(), make_spec())[0]
    assert (grid[TILE + 2 * BORDER : -BORDER] == 255).all()


def test_looking_changes_nothing() -> None:
    method, batch = decoding_method(), make_batch()
    method.fill_grads(batch)
    before, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    gradients = [p.grad.clone() for p in method.parameters()]
    reconstruction_grids(method, batch, make_spec())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(torch.equal(p.grad, old) for p, old in zip(method.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert method.training and method.backbone.training
