"""Squared norms of the middle time step of a layer's inputs (A) and output gradients (E), in few operations.

A training step of a small network is short, so the number of operations counts. The middle step has the same place in
memory in each batch. So the place is found once for each shape.

Shape letters: B examples.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import by_time, channels_last, images, patches_per_pixel
from sadp_bench.capture.squared_norms import are_spikes, in_rows, middle, of_bias, row_squares
from sadp_bench.core.row_squares import attached_row_squares


@dataclass(frozen=True, slots=True)
class Place:
    """The middle time step of a tensor as rows of a matrix, [B, numbers].

    Attributes:
        size: The matrix's size.
        stride: The matrix's strides, if it is a view of the tensor; None: it is a copy.
        offset: Where the matrix begins in the tensor.
        times: See `row_squares`.
        added: The number that is added to each row's sum.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...] | None
    offset: int
    times: Tensor | None = None
    added: int = 0


class MiddleStep:
    """Computes squared norms of the middle time step. All methods return float32, or float64 for a float64 network."""

    def __init__(self) -> None:
        self._places: dict[tuple[object, ...], Place] = {}

    def input_squares(self, layer: nn.Module, input: Tensor, output: Tensor, batch: int) -> Tensor:
        """Returns the middle time step of `squared_norms.input_squares`, [B]."""
        x = input.detach()
        key = layer, batch, x.shape, x.stride(), x.dtype
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _place(layer, x, batch, output)
        square_B = row_squares(_rows(layer, x, batch, place), place.times, are_spikes(input))
        return square_B + place.added if place.added else square_B

    def error_squares(self, layer: nn.Module, error: Tensor, batch: int) -> Tensor:
        """Returns the middle time step of `squared_norms.error_squares`, [B]."""
        square_N = attached_row_squares(error)
        if square_N is not None:
            first = len(square_N) // batch // 2 * batch
            return square_N[first : first + batch]
        key = layer, batch, error.shape, error.stride()
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _place(layer, error, batch)
        return row_squares(_rows(layer, error, batch, place), None, False)


def _place(layer: nn.Module, x: Tensor, batch: int, output: Tensor | None = None) -> Place:
    """Returns the place of the middle step in an error; in an input if the layer's output is given."""
    step = middle(by_time(layer, x, batch))
    times, added = None, 0
    if output is not None:
        image = images(layer, step)
        times = patches_per_pixel(layer, image, channels_last(image))
        added = of_bias(layer, step, output, 1)
    rows = _in_rows(layer, step)
    is_view = rows.data_ptr() == step.data_ptr()
    stride = rows.stride() if is_view else None
    return Place(rows.shape, stride, int(step.storage_offset() - x.storage_offset()), times, added)


def _rows(layer: nn.Module, x: Tensor, batch: int, place: Place) -> Tensor:
    if place.stride is None:
        return _in_rows(layer, middle(by_time(layer, x, batch)))
    return x.as_strided(place.size, place.stride, x.storage_offset() + place.offset)


def _in_rows(layer: nn.Module, step: Tensor) -> Tensor:
    return in_rows(images(layer, step), 1)
