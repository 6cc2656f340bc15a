"""Every head against its definition in plain functions of torch: outputs, gradients, statistics, and no weight left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heads.classifiers import CLASSIFIERS
from heads.decoder import decoder, small_decoder
from heads.prediction import RowPrediction
from heads.projection import projection
from heads.similarity import similarity_convolution, similarity_linear
from heads.synthesiser import Synthesiser
from model import Shape

Windows = list[tuple[int, int]]  # first row (or column) of each, and the one behind its last
CLASSES, HIDDEN, BATCH = 5, 11, 4


class Weights:
    """A head's parameters and statistics, taken one after the other by the functions that the definition names."""

    def __init__(self, head: nn.Module) -> None:
        self.all = [parameter.detach().clone().requires_grad_() for parameter in head.parameters()]
        self.statistics = [buffer.clone() for buffer in head.buffers()]
        self.left, self.unread, self.training = [*self.all], [*self.statistics], head.training

    def take(self, *shape: int) -> Tensor:
        """The next parameter, which must have this shape."""
        weight = self.left.pop(0)
        assert weight.shape == shape
        return weight

    def conv(
        self,
        x: Tensor,
        channels: int,
        size: tuple[int, int],
        stride: int = 1,
        pad: tuple[int, int] = (0, 0),
        bias: bool = False,
    ) -> Tensor:
        weight = self.take(channels, x.shape[1], *size)
        return F.conv2d(x, weight, self.take(channels) if bias else None, stride, pad)

    def linear(self, x: Tensor, features: int, bias: bool = True) -> Tensor:
        weight = self.take(features, x.shape[1])
        return F.linear(x, weight, self.take(features) if bias else None)

    def norm_relu(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x))

    def norm(self, x: Tensor) -> Tensor:
        mean, variance, count = (self.unread.pop(0) for _ in range(3))
        if self.training:
            count += 1
        return F.batch_norm(
            x, mean, variance, self.take(x.shape[1]), self.take(x.shape[1]), self.training, momentum=0.1, eps=1e-5
        )  # fmt: skip


def conv3(w: Weights, x: Tensor, channels: int, stride: int = 1, bias: bool = False) -> Tensor:
    return w.conv(x, channels, (3, 3), stride, (1, 1), bias)


def means(x: Tensor, rows: Windows | None, columns: Windows | None = None) -> Tensor:
    """The mean of every window, columns as rows unless given; without windows the map itself."""
    if rows is None:
        return x
    lines = [
        torch.stack([x[:, :, top:bottom, left:right].mean((2, 3)) for left, right in columns or rows], 2)
        for top, bottom in rows
    ]
    return torch.stack(lines, 2)


def even(side: int, count: int) -> Windows:
    """``count`` windows that tile a side."""
    return [(side // count * i, side // count * (i + 1)) for i in range(count)]


def mlp(w: Weights, x: Tensor, hidden: int, width: int = HIDDEN, out: int = CLASSES) -> Tensor:
    x = x.flatten(1)
    for _ in range(hidden):
        x = F.relu(w.linear(x, width))
    return w.linear(x, out)


def enlarged(x: Tensor, height: int, width: int, corners: bool) -> Tensor:
    """Bilinear interpolation as a product with two matrices."""

    def matrix(before: int, after: int) -> Tensor:
        table = torch.zeros(after, before, dtype=x.dtype)
        for i in range(after):
            place = i * (before - 1) / max(after - 1, 1) if corners else max((i + 0.5) * before / after - 0.5, 0)
            low = min(int(place), before - 1)
            table[i, low] += 1 - (place - low)
            table[i, min(low + 1, before - 1)] += place - low
        return table

    return matrix(x.shape[2], height) @ x @ matrix(x.shape[3], width).T


# The definitions: what a head does with its weights `w` and its input `x`.


def mlp_sr(first: Windows | None, second: Windows | None, hidden: int, w: Weights, x: Tensor) -> Tensor:
    channels = x.shape[1]
    x = means(x, first)
    for _ in range(3):
        x = w.norm_relu(w.conv(x, channels, (1, 1)))
    x = means(x, second).flatten(1)
    for _ in range(hidden):
        x = w.norm_relu(w.linear(x, 4 * channels))
    return w.linear(x, CLASSES)


def cnn_full(windows: Windows, hidden: int, w: Weights, x: Tensor) -> Tensor:
    for _ in range(hidden):
        x = w.norm_relu(conv3(w, x, x.shape[1]))
    return w.linear(w.norm(means(x, windows)).flatten(1), CLASSES)


def one_conv(large: bool, hidden: int, w: Weights, x: Tensor) -> Tensor:
    x = w.norm_relu(conv3(w, x, 2 * x.shape[1], 2) if large else conv3(w, x, x.shape[1]))
    return mlp(w, x.mean((2, 3)), hidden)


def cnn(pool: bool, hidden: int, w: Weights, x: Tensor) -> Tensor:
    x = w.norm_relu(conv3(w, x, x.shape[1], bias=True))
    return mlp(w, F.max_pool2d(x, 2, 2) if pool else x, hidden)


def pooled(windows: Windows | None, hidden: int, w: Weights, x: Tensor) -> Tensor:
    return mlp(w, means(x, windows), hidden)


def conv(hidden: int, w: Weights, x: Tensor) -> Tensor:
    for _ in range(hidden):
        x = F.relu(conv3(w, x, HIDDEN))
    return w.linear(x.flatten(1), CLASSES)


def linear(rows: Windows | None, columns: Windows | None, w: Weights, x: Tensor) -> Tensor:
    return w.linear(means(x, rows, columns).flatten(1), CLASSES)


def drawn(kind: str | None, doublings: int, channels: int, w: Weights, x: Tensor) -> Tensor:
    for _ in range(doublings):
        half = max(x.shape[1] // 2, 1)
        if kind == "transposed":
            x = F.conv_transpose2d(x, w.take(x.shape[1], half, 2, 2), stride=2)
        else:
            x = enlarged(w.conv(x, half, (1, 1)), 2 * x.shape[2], 2 * x.shape[3], corners=False)
        x = w.norm_relu(x)
    return w.conv(x, channels, (1, 1), bias=True)


def drawn_small(height: int, width: int, channels: int, w: Weights, x: Tensor) -> Tensor:
    x = w.norm_relu(conv3(w, enlarged(x, height, width, corners=True), 12))
    return conv3(w, x, channels, bias=True)


def projected(w: Weights, x: Tensor) -> Tensor:
    return mlp(w, x.mean((2, 3)), 1, x.shape[1], 128)


def rows_below(windows: Windows | None, steps: int, w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    z, channels = means(x, windows), x.shape[1]
    matrices = w.take(steps * channels, channels, 1, 1).view(steps, channels, channels)
    return z, torch.stack([torch.einsum("oc,bchw->bohw", matrix, z) for matrix in matrices], 1)


def synthesised(size: tuple[int, int], classes: int, w: Weights, x: Tensor, y: Tensor) -> Tensor:
    pad, channels = (size[0] // 2, size[1] // 2), x.shape[1]
    context = w.left.pop() if classes else torch.zeros(channels, 9, dtype=x.dtype)
    assert context.shape == (channels, classes or 9)
    x = w.conv(x, channels, size, pad=pad) + context[:, y].T[:, :, None, None]
    x = w.norm_relu(w.conv(w.norm_relu(x), channels, size, pad=pad))
    return w.conv(x, channels, size, pad=pad, bias=True)


def compare(head: nn.Module, definition: Callable[..., Tensor | tuple[Tensor, ...]], x: Tensor, *rest: Tensor) -> None:
    """Outputs, gradients of input and parameters and running statistics, all from the same random weights."""
    weights, given = Weights(head), x.clone().requires_grad_()
    x = x.clone().requires_grad_()
    expected, found = definition(weights, x, *rest), head(given, *rest)
    assert not weights.left and not weights.unread
    pairs = list(zip(expected, found, strict=True)) if isinstance(expected, tuple) else [(expected, found)]
    cotangents = [torch.randn_like(one) for one, _ in pairs]
    torch.autograd.backward([one for one, _ in pairs], cotangents)
    torch.autograd.backward([other for _, other in pairs], cotangents)
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    for one, other in pairs:
        close(other, one)
    close(given.grad, x.grad)
    for parameter, weight in zip(head.parameters(), weights.all, strict=True):
        close(parameter.grad, weight.grad)
    for buffer, statistic in zip(head.buffers(), weights.statistics, strict=True):
        close(buffer, statistic)


def of(make: Callable[..., nn.Module], shape: tuple[int, ...], *rest: object) -> tuple[Callable[[], nn.Module], Shape]:
    return lambda: make(Shape(*shape), *rest), Shape(*shape)


def classifier(name: str, hidden: int, *shape: int) -> tuple[Callable[[], nn.Module], Shape]:
    return of(CLASSIFIERS[name], shape, CLASSES, hidden, HIDDEN)


THIRDS, SEVEN = [(0, 3), (2, 5)], [(0, 4), (3, 7)]  # of sides 5 and 7, in two windows that overlap by one
CASES: dict[str, tuple[tuple[Callable[[], nn.Module], Shape], Callable[..., Tensor | tuple[Tensor, ...]]]] = {
    "mlp_sr 32": (classifier("mlp_sr", 3, 3, 32, 32), partial(mlp_sr, even(32, 8), even(8, 2), 3)),
    "mlp_sr 16": (classifier("mlp_sr", 1, 3, 16, 16), partial(mlp_sr, even(16, 4), even(4, 2), 1)),
    "mlp_sr 8": (classifier("mlp_sr", 1, 3, 8, 8), partial(mlp_sr, even(8, 2), None, 1)),
    "mlp_sr 7": (classifier("mlp_sr", 0, 3, 7, 7), partial(mlp_sr, SEVEN, None, 0)),
    "mlp_sr 2": (classifier("mlp_sr", 2, 3, 2, 2), partial(mlp_sr, None, None, 2)),
    "cnn_full 8": (classifier("cnn_full", 2, 3, 8, 8), partial(cnn_full, even(8, 2), 2)),
    "cnn_full 5": (classifier("cnn_full", 1, 3, 5, 5), partial(cnn_full, THIRDS, 1)),
    "cnn_full 32, k = 1": (classifier("cnn_full", 0, 3, 32, 32), partial(cnn_full, even(32, 2), 0)),
    "1c2f 32": (classifier("1c2f", 1, 3, 32, 32), partial(one_conv, True, 1)),
    "1c2f 17": (classifier("1c2f", 1, 3, 17, 17), partial(one_conv, True, 1)),
    "1c2f 16": (classifier("1c2f", 2, 3, 16, 16), partial(one_conv, True, 2)),
    "1c2f 15": (classifier("1c2f", 1, 3, 15, 15), partial(one_conv, False, 1)),
    "1c2f 8": (classifier("1c2f", 1, 3, 8, 8), partial(one_conv, False, 1)),
    "cnn 8": (classifier("cnn", 1, 3, 8, 8), partial(cnn, True, 1)),
    "cnn 5": (classifier("cnn", 2, 3, 5, 5), partial(cnn, True, 2)),
    "cnn 1": (classifier("cnn", 0, 3, 1, 1), partial(cnn, False, 0)),
    "pooled 8": (classifier("pooled", 1, 3, 8, 8), partial(pooled, even(8, 2), 1)),
    "pooled 7": (classifier("pooled", 2, 3, 7, 7), partial(pooled, SEVEN, 2)),
    "conv": (classifier("conv", 1, 3, 6, 5), partial(conv, 1)),
    "conv twice": (classifier("conv", 2, 3, 6, 5), partial(conv, 2)),
    "mlp": (classifier("mlp", 1, 3, 4, 5), partial(pooled, None, 1)),
    "mlp twice": (classifier("mlp", 2, 3, 4, 5), partial(pooled, None, 2)),
    "linear 4": (classifier("linear", 0, 3, 4, 4), partial(linear, None, None)),
    "linear 16": (classifier("linear", 2, 256, 16, 16), partial(linear, even(16, 2), even(16, 4))),
    "linear 5": (classifier("linear", 0, 512, 5, 5), partial(linear, [(0, 4), (4, 5)], None)),
    "transposed 4 to 16": (of(decoder, (6, 4, 4), Shape(3, 16, 16), "transposed"), partial(drawn, "transposed", 2, 3)),
    "transposed 3 to 14": (of(decoder, (2, 3, 3), Shape(1, 14, 14), "transposed"), partial(drawn, "transposed", 2, 1)),
    "bilinear 4 to 16": (of(decoder, (6, 4, 4), Shape(3, 16, 16), "bilinear"), partial(drawn, "bilinear", 2, 3)),
    "bilinear 3 to 14": (of(decoder, (2, 3, 3), Shape(1, 14, 14), "bilinear"), partial(drawn, "bilinear", 2, 1)),
    "decoder without up-sampling": (of(decoder, (6, 4, 4), Shape(3, 16, 16), None), partial(drawn, None, 0, 3)),
    "small_decoder 4 to 16": (of(small_decoder, (6, 4, 4), Shape(3, 16, 16)), partial(drawn_small, 16, 16, 3)),
    "small_decoder 3x1 to 7x8": (of(small_decoder, (6, 3, 1), Shape(1, 7, 8)), partial(drawn_small, 7, 8, 1)),
    "projection": (of(projection, (6, 4, 5)), projected),
    "rows 16": (of(RowPrediction, (3, 16, 16)), partial(rows_below, [(2 * i, 2 * i + 4) for i in range(7)], 5)),
    "rows 8": (of(RowPrediction, (3, 8, 8)), partial(rows_below, [(i, i + 2) for i in range(7)], 5)),
    "rows 4": (of(RowPrediction, (3, 4, 4)), partial(rows_below, None, 2)),
    "similarity": (of(similarity_convolution, (3, 4, 5)), lambda w, x: conv3(w, x, 3)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def at_random(head: nn.Module, training: bool) -> nn.Module:
    """In float64, with parameters that are not those of the start and statistics that are not of a new BatchNorm."""
    head = head.double().train(training)
    with torch.no_grad():
        for tensor in (*head.parameters(), *head.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.2)
        for parameter in head.parameters():
            parameter.mul_(torch.randn_like(parameter).sign())
    return head


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name: str, training: bool) -> None:
    (build, shape), definition = CASES[name]
    compare(at_random(build(), training), definition, torch.randn(BATCH, *shape, dtype=torch.float64))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize(("shape", "size"), [((3, 6, 5), (5, 5)), ((3, 2, 4), (3, 5)), ((3, 1, 1), (1, 1))])
def test_the_synthesiser(shape: tuple[int, int, int], size: tuple[int, int], classes: int, training: bool) -> None:
    head = at_random(Synthesiser(Shape(*shape), classes), training)
    x_BCHW, y_B = torch.randn(BATCH, *shape, dtype=torch.float64), torch.tensor([0, 3, 1, 3])
    compare(head, partial(synthesised, size, classes), x_BCHW, y_B)


def test_the_similarity_head_behind_a_fully_connected_layer() -> None:
    compare(similarity_linear(7).double(), lambda w, x: w.linear(x, 7, bias=False), torch.randn(BATCH, 7).double())


def test_what_starts_at_zero() -> None:
    for parameter in CLASSIFIERS["linear"](Shape(3, 4, 4), CLASSES, 1, HIDDEN).parameters():
        assert not parameter.any()
    for name, parameter in Synthesiser(Shape(3, 4, 4), 4).named_parameters():
        last_or_bias_of_a_norm = name == "rest.5.weight" or name.endswith("bias")
        assert parameter.any() != last_or_bias_of_a_norm, name
