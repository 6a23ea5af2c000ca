"""Signals of a training step that a pruner can watch.

Shape letters: T time steps, B batch, C classes, D readout features, S spiking layers, L weight layers but the readout.
"""

from __future__ import annotations

from enum import StrEnum


class Signal(StrEnum):
    """A quantity that hooks record of every batch. Each member equals its name as a plain string.

    Attributes:
        FEATURES: (T, B, D), the readout's input.
        LOGIT_ERRORS: (T, B, C), the gradient of each example's unweighted loss at its logits.
        SPIKE_COUNTS: (S, T, B), the number of spikes of each spiking layer.
        INPUT_SQUARES: (L, B), A_l: the sum of squares of a layer's inputs over time. An input counts once for each patch
            of a convolution that contains it. A bias adds one for every output position. For spikes it is a count.
        ERROR_SQUARES: (L, B), E_l: the sum of squares, over time, of the gradient of the example's unweighted loss at the
            layer's output. By Cauchy-Schwarz, E_l A_l bounds the squared norm of the example's gradient with respect to the
            layer's parameters. Batch norm in training mixes the examples, and E_l contains that.
        MIDDLE_INPUT_SQUARES: (L, B), A_l of the middle time step alone. Its cost does not grow with T. If only some steps
            have gradients, it is the middle one of these.
        MIDDLE_ERROR_SQUARES: (L, B), E_l of the middle time step alone.
        HEAD_ERRORS: (L, B), recorded with the error squares under local learning alone: E of the head whose loss trains the
            layer. For a layer that the readout's loss trains, it is the sum of squares of the logits' errors.
        BOUND_RATIO: (2, L), in an epoch's first batch only. It has two sums over the batch's first examples (at most 32):
            of the exact squared norm over all time steps, and of E_l A_l of the middle step.
    """

    FEATURES = "features"
    LOGIT_ERRORS = "logit_errors"
    SPIKE_COUNTS = "spike_counts"
    INPUT_SQUARES = "input_squares"
    ERROR_SQUARES = "error_squares"
    MIDDLE_INPUT_SQUARES = "middle_input_squares"
    MIDDLE_ERROR_SQUARES = "middle_error_squares"
    BOUND_RATIO = "bound_ratio"
    HEAD_ERRORS = "head_errors"
