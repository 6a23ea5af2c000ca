"""The C core's convolution of spikes against torch's convolution, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from sadp_bench.backbones.spike_conv2d import SpikeConv2d
from sadp_bench.native import spike_conv as module
from sadp_bench.native.library import absence
from sadp_bench.native.spike_conv import output, spike_conv, takes, weight_gradient

pytestmark = pytest.mark.skipif(absence() is not None, reason=f"{absence()}")

KERNELS = [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (4, 2, 1), (5, 3, 2)]  # size, stride, padding
# N, I, O, H, W: odd sides; more inputs than a unit of work; outputs of every part of a tile, and a rest; a single image.
SHAPES = [(5, 8, 12, 7, 6), (3, 70, 33, 5, 9), (2, 3, 64, 4, 4), (1, 1, 120, 5, 5), (40, 2, 1, 3, 3)]
G = torch.Generator().manual_seed(0)


def numbers(kind: str, shape: tuple[int, ...]) -> Tensor:
    """Returns spikes, sums of spikes, or any numbers, with 1, -1, 0 and -0 among them."""
    spikes = (torch.rand(shape, generator=G) < 0.2).float()
    if kind == "sums":
        return spikes + (torch.rand(shape, generator=G) < 0.2)
    signs = torch.randint(0, 2, shape, generator=G) * 2 - 1
    return (
        spikes
        if kind == "spikes"
        else spikes * signs + 0.5 * numbers("spikes", shape)
        if kind == "signs"
        else signs * 0.3
    )


def close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 3e-6 * wanted.abs().max())


@pytest.mark.parametrize("kind", ("spikes", "sums", "signs", "dense"))
def test_it_equals_any_convolution(kind: str) -> None:
    for (size, stride, padding), (images, inputs, outputs, *sides) in itertools.product(KERNELS, SHAPES):
        x = numbers(kind, (images, inputs, *sides))
        weight, bias = torch.randn(outputs, inputs, size, size, generator=G), torch.randn(outputs, generator=G)
        found = [t.clone().requires_grad_() for t in (x, weight, bias)]
        wanted = [t.double().requires_grad_() for t in (x, weight, bias)]
        y = spike_conv(*found, stride, padding)
        exact = conv2d(*wanted, stride=stride, padding=padding)
        error = torch.randn(y.shape, generator=G)
        y.backward(error)
        exact.backward(error.double())
        case = f"{kind}: {images, inputs, outputs, sides}, kernel {size}, stride {stride}, padding {padding}"
        assert y.is_contiguous(memory_format=torch.channels_last) and close(y, exact), case
        for name, f, w in zip(("input", "weight", "bias"), found, wanted, strict=True):
            assert f.grad is not None and w.grad is not None and close(f.grad, w.grad), (
                f"{case}: gradient at the {name}"
            )


def test_the_spikes_of_a_set_of_images_give_whole_numbers_exactly() -> None:
    # Sums of small whole numbers have no rounding, whatever their order.
    x = numbers("spikes", (9, 40, 6, 7)).contiguous(memory_format=torch.channels_last)
    weight = torch.randint(-8, 9, (24, 40, 3, 3), generator=G).float()
    y = output(x, weight, None, 1, 1)
    assert torch.equal(y, conv2d(x, weight, padding=1))
    wanted = nn.grad.conv2d_weight(x, weight.shape, y, padding=1)
    assert torch.equal(weight_gradient(x, y, 3, 1, 1), wanted)


def test_its_numbers_do_not_depend_on_the_threads() -> None:
    x = numbers("spikes", (33, 32, 8, 8)).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(40, 32, 3, 3, generator=G)
    threads, made = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = output(x, weight, None, 1, 1)
            made.append((y, weight_gradient(x, y, 3, 1, 1)))
    finally:
        torch.set_num_threads(threads)
    for y, dweight in made[1:]:
        assert torch.equal(y, made[0][0]) and torch.equal(dweight, made[0][1])


def test_a_number_that_is_not_finite_stays_visible() -> None:
    for bad in (float("nan"), float("inf")):
        x = torch.zeros(1, 2, 4, 4).contiguous(memory_format=torch.channels_last)
        x[0, 1, 2, 2] = bad
        y = output(x, torch.ones(8, 2, 3, 3), None, 1, 1)
        assert not y[0, :, 1:4, 1:4].isfinite().any() and y[0, :, 0].isfinite().all()


def test_it_takes_what_is_possible_and_worth_the_time() -> None:
    x = torch.zeros(2, 32, 8, 8)

    def conv(inputs: int = 32, outputs: int = 32, size: int = 3, **other: object) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, size, **other)  # type: ignore[arg-type]

    assert takes(conv(padding=1), x) and takes(conv(stride=2, padding=1), x) and takes(conv(size=4, stride=2), x)
    for layer in (
        conv(size=1), conv(outputs=16), conv(groups=2), conv(dilation=2), conv(padding="same", padding_mode="reflect"),
        conv(stride=(1, 2)), conv(padding=(0, 1)),
    ):  # fmt: skip
        assert not takes(layer, x), layer
    assert not takes(conv(), x.double()) and not takes(conv(), x[:0])
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes(conv(), x)


def test_a_layer_takes_it_with_the_native_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "output", lambda *args: calls.append(1) or output(*args))
    x = numbers("spikes", (2, 3, 32, 6, 6))
    for kernel, wanted in (("python", 0), ("native", 1)):
        SpikeConv2d(32, 32, 3, 1, bias=False, step_mode="m", kernel=kernel)(x)
        assert len(calls) == wanted
