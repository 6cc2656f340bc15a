"""CKA of two runs, block by block."""

from __future__ import annotations

import torch

from diagnostics.features import centred_gram, gram_cka
from studies.cka import cka_matrix


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_matrix_has_the_similarity_of_every_row_with_every_column() -> None:
    rows, columns = [random(20, 3, seed=seed) for seed in (0, 1)], [random(20, 4, seed=seed) for seed in (2, 3, 4)]
    found = cka_matrix([centred_gram(x_PD) for x_PD in rows], [centred_gram(y_PE) for y_PE in columns])
    assert found == [[gram_cka(centred_gram(x_PD), centred_gram(y_PE)) for y_PE in columns] for x_PD in rows]
