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
        INPUT_SQUARES: (L, B), A_l: the sum of squares of a layer's inputs over time, each input as often as a convolution's
            patch takes it (for spikes a count), plus one for every output position where there is a bias.
        ERROR_SQUARES: (L, B), E_l: the sum of squares, over time, of the gradient of the example's unweighted loss at the
            layer's output. By Cauchy-Schwarz the squared norm of the example's gradient of the layer's parameters is at most
            E_l A_l. Where batch norm trains, E_l contains its mixing of the examples.
        MIDDLE_INPUT_SQUARES: (L, B), A_l of the middle time step alone, so that its cost does not grow with T. If only
            some steps give gradients, the middle one of these.
        MIDDLE_ERROR_SQUARES: (L, B), E_l of the middle time step alone.
        HEAD_ERRORS: (L, B), with local learning alone, beside the error squares: E of the head by whose loss a layer trains.
            For a layer that trains by the readout, the sum of squares of the logits' errors.
        BOUND_RATIO: (2, L), in an epoch's first batch only: sums over the batch's first examples (at most 32) of the exact
            squared norm over all time steps, and of E_l A_l of the middle step.
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
