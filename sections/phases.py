"""Sequential greedy training: one block after the other, each to its end, instead of all at once.

Paper:
    Belilovsky, Eickenberg, Oyallon 2019, "Greedy Layerwise Learning Can Scale to ImageNet", arXiv 1812.11446; code
    eugenium/layerCNN.

Signal:
    With ``--sequential`` the run has one phase for each trained block (or module), all equally long: ``--epochs`` is
    the total, so 60 epochs give three blocks 20 each. In phase i block i minimises the loss that it has without the
    flag, on the outputs of the blocks before it, which are finished: no gradient, no update, no weight decay,
    statistics of BatchNorm as they are. Blocks above are not run. Every phase begins with the learning rate's course
    anew and without momentum. With one module the flag changes nothing.
    ``--pred_aux_type cnn_full`` is the paper's head; ``--aux_mlp_n_hidden_layers`` of 0, 1 and 2 are its k = 1, 2, 3.
    ``evaluate --early_exit`` also gives its ensemble: the exits' logits added, that of exit i with weight 2^i.

Cost:
    One block's graph, gradients and optimiser step; a block that is finished is still run forward, because images are
    augmented anew. E epochs of L equal blocks cost about (L + 5) / 6L of what E epochs of all at once do, if a backward
    pass costs two forward ones; but a block learns for E / L epochs only.

Deviations:
    1. The last phase trains the last block with the network's classifier; the paper trains every block with a head, and
       tests the last one's.
    2. Before the last phase the network has no accuracy, since its rest is untrained: only exits that have begun to
       learn are measured, and the best checkpoint is one of the last phase.
    3. Pools are those of the network; theirs rearranges 2x2 pixels to channels.

Reference numbers:
    eugenium/layerCNN, CIFAR-10 test accuracy, 50 epochs a layer, width 128 (256 for k = 1), SGD 0.1 divided by 5
    every 15 epochs, batch 128, crop and flip: k = 1 about 88.3 % (five layers), k = 2 90.4 %, k = 3 91.7 % (four).
    eugenium/DGL, four layers, width 64, 50 epochs: one after the other 89.13 %, all at once 89.86 %.
"""

from __future__ import annotations

from sections.fields import POSITIVE, Other, Section, setting


class Phases(Section):
    """Order of local methods."""

    sequential: bool = setting(
        False, "train one block (or module) after the other, each for an equal share of --epochs, then freeze it",
        excludes={
            "overlap": (POSITIVE, "a block that is finished learns no more"),
            "layer_parallel": (Other("off"), "only one block learns at a time"),
        },
    )  # fmt: skip
