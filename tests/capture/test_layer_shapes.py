"""The time layout of inputs, and the number of patches that each pixel belongs to, against counting."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sadp_bench.capture.layer_shapes import _patches_per_pixel, arranged, channels_last, patches_per_pixel, window
from sadp_bench.capture.squared_norms import row_squares, squares
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream

B, D = 4, 3


def marked(*lead: int) -> Tensor:
    """Returns rows that each contain their own number, D times."""
    return torch.arange(torch.Size(lead).numel()).view(lead)[..., None].expand(*lead, D)


ROWS: dict[str, tuple[tuple[int, ...], bool | None, list]] = {
    "static": ((B,), None, [[[0], [1], [2], [3]]]),
    "time first": ((2, B), None, [[[0], [1], [2], [3]], [[4], [5], [6], [7]]]),
    "time first, folded": ((2 * B,), True, [[[0], [1], [2], [3]], [[4], [5], [6], [7]]]),
    "as many steps as examples": ((B, B), True, [[[4 * t + b] for b in range(B)] for t in range(B)]),
    "tokens": ((B, 2), None, [[[0, 1], [2, 3], [4, 5], [6, 7]]]),
    "tokens, folded": ((B * 2,), False, [[[0, 1], [2, 3], [4, 5], [6, 7]]]),
    "as many tokens as examples": ((B, B), False, [[[4 * b + n for n in range(B)] for b in range(B)]]),
    "tokens before the batch": ((2, B), False, [[[0, 4], [1, 5], [2, 6], [3, 7]]]),
    "time and tokens": ((2, B, 2), True, [[[8 * t + 2 * b, 8 * t + 2 * b + 1] for b in range(B)] for t in range(2)]),
    "folded time and tokens": (
        (2 * B, 2),
        True,
        [[[8 * t + 2 * b, 8 * t + 2 * b + 1] for b in range(B)] for t in range(2)],
    ),
    "a static layer in a network with time": ((B, 2), True, [[[0, 1], [2, 3], [4, 5], [6, 7]]]),
}


def test_rows_come_to_their_step_example_and_token() -> None:
    for name, (lead, time_first, expected) in ROWS.items():
        out = arranged(marked(*lead), 1, B, time_first)
        assert out.shape[1] == B and out.shape[-1] == D, name
        assert out[..., 0].reshape(len(out), B, -1).tolist() == expected, name


def test_rows_of_time_or_tokens_are_refused_with_the_option_that_decides() -> None:
    for lead in ((2 * B,), (B, B), (2 * B, B), (2 * B, 3)):
        with pytest.raises(BadInput, match=r"may be time steps or tokens: set time_first=True .* time_first=False"):
            arranged(marked(*lead), 1, B, None)


def test_rows_that_do_not_divide_are_refused() -> None:
    for lead, time_first in product([(), (B + 1,), (2,), (3, 5), (5, 3, B)], [True, False, None]):
        with pytest.raises(BadInput, match="do not divide among the 4 examples"):
            arranged(marked(*lead), 1, B, time_first)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_pixels_are_counted_as_often_as_patches_take_them(mode: str) -> None:
    geometries = [((3, 2), (1, 2)), ((2, 4), (1, 1)), ((1, 1), (1, 1))]
    paddings: list[Any] = [(2, 1), "same"]
    for padding, (size, dilation) in product(paddings, geometries):
        conv = nn.Conv2d(1, 1, size, dilation=dilation, padding=padding, padding_mode=mode, bias=False)
        nn.init.ones_(conv.weight)
        image = torch.zeros(1, 1, 5, 6, requires_grad=True)
        [counted] = torch.autograd.grad(conv(image).sum(), image)  # each output adds up its patch
        assert torch.equal(window(conv).times_taken(5, 6).float(), counted[0, 0]), (padding, size)
        patches = window(conv).unfold(torch.randn(2, 1, 5, 6))
        assert patches.shape == (2, size[0] * size[1], conv(torch.zeros(2, 1, 5, 6))[0].numel())


def test_channels_last_is_reported_by_how_images_lie() -> None:
    image = torch.zeros(2, 3, 4, 5)
    assert not channels_last(image) and channels_last(image.contiguous(memory_format=torch.channels_last))
    assert channels_last(image.movedim(1, -1).contiguous().movedim(-1, 1)[None])


def as_images(x: Tensor) -> Tensor:
    """Returns the same numbers with channels last in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


def test_spikes_of_16_bits_are_counted_beyond_their_range() -> None:
    conv = nn.Conv2d(64, 2, 3, padding=1, bias=False)
    for dtype, lie in product([torch.float16, torch.bfloat16, torch.float32], [as_images, Tensor.contiguous]):
        spikes = lie(torch.ones(1, 2, 64, 16, 16, dtype=dtype))
        times = patches_per_pixel(conv, spikes, channels_last(spikes))
        expected = torch.full((1, 2), 64 * (3 * 16 - 2) ** 2).float()  # beyond the range of float16
        torch.testing.assert_close(squares(spikes, 2, times, True), expected, rtol=2**-8, atol=0)
        # Channels and pixels differ, so that a wrong order shows.
        image = lie(torch.arange(1.0, 5).to(dtype).view(1, 1, 2, 2, 1).expand(1, 3, 2, 2, 5))
        times = patches_per_pixel(nn.Conv2d(2, 2, (1, 3)), image, channels_last(image))
        of_row = torch.tensor([1.0, 2, 3, 2, 1]).sum()  # patches of three take each pixel of a row
        torch.testing.assert_close(squares(image, 2, times), (30 * of_row).expand(1, 3), rtol=2**-8, atol=0)


def test_row_squares_of_every_type_and_length_are_those_in_float64() -> None:
    most = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 2**-7}
    for (dtype, rtol), length in product(most.items(), [1, 7, 96, 40_000]):
        x = (torch.randn(5, length, generator=stream(0, "rows")) * 10.0 ** torch.arange(-2, 3)[:, None]).to(dtype)
        times = (torch.arange(length) % 9 + 1).to(dtype)
        for rows, counted, binary in ((x, None, False), (x, times, False), ((x > 0).to(dtype), times, True)):
            expected = rows.double().square() @ (torch.ones(length).double() if counted is None else counted.double())
            error = (row_squares(rows, counted, binary).double() / expected.clamp_min(1e-30) - 1)[expected > 0].abs()
            assert (error <= rtol).all(), f"{dtype}, {length} columns, {binary=}: {error}"


def test_inputs_of_every_length_do_not_add_up() -> None:
    conv = nn.Conv1d(2, 2, 3)
    kept = _patches_per_pixel.cache_info().maxsize
    assert kept is not None
    for length in range(3, 3 + 2 * kept):
        patches_per_pixel(conv, torch.zeros(1, 2, 1, length), last=True)
    assert _patches_per_pixel.cache_info().currsize <= kept
