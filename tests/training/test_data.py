"""Batches, orders, augmentation and the loader against plain slicing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sadp_bench.core.errors import BadInput
from sadp_bench.datasets.examples import Examples, stratified_order
from sadp_bench.pruners.batching import batches, in_order
from sadp_bench.pruners.exchange import Selection
from sadp_bench.records.fields import canonical_augment
from sadp_bench.training.augmentation import Augmentation, draw_augmentation
from sadp_bench.training.data import Loader
from tests.small_runs import resolved

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bytes_of(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(), dtype=torch.uint8)


def plain_loader(input_N: Tensor) -> Loader:
    """Gives the stored values as they are."""
    channels = input_N.shape[-3]
    return Loader(Examples(input_N, torch.zeros(len(input_N)).long()), 1.0, [0.0] * channels, [1.0] * channels, CPU)


@given(st.integers(1, 700), st.integers(1, 300))
def test_batches_are_near_equal_and_nothing_is_dropped(num_kept: int, batch_size: int) -> None:
    index_K = torch.randperm(num_kept, generator=generator(num_kept))
    weight_K = index_K.float() / 7 + 1
    made = list(batches(index_K, weight_K, -(-num_kept // batch_size)))
    sizes = [len(index_B) for index_B, _ in made]
    assert len(made) == -(-num_kept // batch_size)
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size
    assert torch.equal(torch.cat([index_B for index_B, _ in made]), index_K)
    assert torch.equal(torch.cat([weight_B for _, weight_B in made]), weight_K)


@given(st.integers(1, 60), st.integers(0, 10**6), st.floats(0, 1))
def test_kept_examples_come_in_the_epochs_own_order_with_their_weights(num: int, seed: int, share: float) -> None:
    order_N = torch.randperm(num, generator=generator(seed))
    num_kept = 1 + seed % num
    index_K = torch.randperm(num, generator=generator(seed + 1))[:num_kept]
    weight_of = {int(i): 0.5 + k for k, i in enumerate(index_K)}
    selection = Selection(index_K, torch.tensor([weight_of[int(i)] for i in index_K]))
    wanted = [i for i in order_N.tolist() if i in weight_of]
    index, weight = in_order(selection, order_N)
    assert index.tolist() == wanted and weight.tolist() == [weight_of[i] for i in wanted]
    index, weight = in_order(selection, order_N, share)
    assert index.tolist() == wanted[: len(index)] and len(weight) == len(index) >= 1
    assert abs(len(index) - max(1.0, share * num_kept)) <= 0.5


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 10**6))
def test_every_beginning_of_a_stratified_order_is_balanced(labels: list[int], seed: int) -> None:
    label_N = torch.tensor(labels)
    order = stratified_order(label_N, generator(seed)).tolist()
    assert sorted(order) == list(range(len(labels)))
    whole = {label: labels.count(label) for label in set(labels)}
    seen = dict.fromkeys(whole, 0)
    for i in order:
        seen[labels[i]] += 1
        most = max(seen.values())
        assert all(count >= min(most - 1, whole[label]) for label, count in seen.items())


def test_a_stratified_order_is_shuffled_and_belongs_to_its_generator() -> None:
    label_N = torch.arange(200) % 10
    one, same, other = (stratified_order(label_N, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert not torch.equal(one[:10].sort().values, torch.arange(10))  # not simply the first of each class


def crop_by_hand(image: Tensor, pad: tuple[int, int], row: int, column: int, mirrored: bool) -> Tensor:
    """Returns the crop of a padded image, [..., C, H, W]. Its upper left corner is at `row` and `column`."""
    (height, width), (rows, columns) = image.shape[-2:], pad
    padded = torch.zeros(*image.shape[:-2], height + 2 * rows, width + 2 * columns, dtype=image.dtype)
    padded[..., rows : rows + height, columns : columns + width] = image
    crop = padded[..., row : row + height, column : column + width]
    return crop.flip(-1) if mirrored else crop


@pytest.mark.parametrize(
    "shape, pad, kind",
    [
        ((40, 3, 32, 32), (4, 4), "crop"),
        ((40, 1, 8, 8), (1, 1), "crop-flip"),
        ((40, 1, 28, 28), (3, 3), "crop"),
        ((40, 5, 2, 34, 34), (4, 4), "crop-flip"),
        ((40, 2, 16, 24), (2, 3), "crop-flip"),
        ((40, 1, 1, 64), (0, 4), "crop-flip"),
        ((40, 1, 700, 1), (4, 0), "crop"),
        ((40, 4, 2, 1, 39), (0, 4), "crop-flip"),
        ((40, 1, 5, 7), (0, 0), "crop-flip"),
    ],
)
def test_crop_and_mirror_equal_padding_slicing_and_flipping_one_by_one(
    shape: tuple[int, ...], pad: tuple[int, int], kind: str
) -> None:
    input_N = bytes_of(*shape)
    loader = plain_loader(input_N)
    assert loader.padding == pad
    look = draw_augmentation(kind, 40, pad, loader.sides, generator(3))
    assert look is not None
    index_B = torch.randperm(40, generator=generator(4))[:23]
    shown = loader.input(index_B, look)
    wanted = [
        crop_by_hand(input_N[i], pad, int(look.row_N[i]), int(look.column_N[i]), bool(look.mirrored_N[i]))
        for i in index_B.tolist()
    ]
    assert torch.equal(shown, torch.stack(wanted, dim=1 if len(shape) == 5 else 0).float())


def test_no_image_is_shifted_by_more_than_an_eighth_of_each_of_its_sides() -> None:
    for sides in ((1, 64), (1, 700), (700, 1), (1, 39), (7, 200), (128, 9), (32, 32), (34, 34)):
        loader = plain_loader(torch.full((200, 1, *sides), 1, dtype=torch.uint8))
        look = draw_augmentation("crop-flip", 200, loader.padding, loader.sides, generator())
        shown_N1HW = loader.input(torch.arange(200), look)
        for axis, side in zip((3, 2), sides, strict=True):
            blank_N = side - shown_N1HW.amax(axis).sum((1, 2))
            assert blank_N.max() <= side / 8, f"{sides}: {blank_N.max():g} of {side} are blank along an axis"


def test_equal_sides_are_padded_and_drawn_as_ever() -> None:
    for side, pad in ((32, 4), (28, 3), (8, 1), (34, 4)):
        loader = plain_loader(bytes_of(2, 1, side, side))
        look, draws = draw_augmentation("crop-flip", 50, loader.padding, loader.sides, generator()), generator()
        assert look is not None and loader.padding == (pad, pad)
        row_N, column_N = torch.randint(0, 2 * pad + 1, (2, 50), generator=draws)
        assert torch.equal(look.row_N, row_N) and torch.equal(look.column_N, column_N)
        assert torch.equal(look.mirrored_N, torch.rand(50, generator=draws) < 0.5)


def test_every_offset_is_drawn_and_half_of_the_images_are_mirrored() -> None:
    look, crop = (draw_augmentation(kind, 4000, (4, 4), (32, 32), generator()) for kind in ("crop-flip", "crop"))
    assert look is not None and crop is not None
    for offset_N in (look.row_N, look.column_N):
        counts = offset_N.bincount()
        assert len(counts) == 9 and int(counts.min()) > 4000 / 9 * 0.8
    assert not torch.equal(look.row_N, look.column_N)
    assert 1850 < int(look.mirrored_N.sum()) < 2150
    assert not crop.mirrored_N.any()
    assert draw_augmentation("none", 4000, (4, 4), (32, 32), generator()) is None


def test_how_an_example_is_shown_does_not_depend_on_who_else_is_chosen() -> None:
    loader = plain_loader(bytes_of(50, 3, 32, 32))
    look = draw_augmentation("crop-flip", 50, (4, 4), (32, 32), generator())
    together = loader.input(torch.arange(50), look)
    some = torch.tensor([31, 4, 17])
    assert torch.equal(loader.input(some, look), together[some])
    for i in (0, 17, 49):
        assert torch.equal(loader.input(torch.tensor([i]), look)[0], together[i])


def test_a_hole_is_zero_after_normalisation_and_the_rest_is_the_image_without_it() -> None:
    """Checks pixel by pixel: a hole is half of each side around a centre, clipped at the edges, at every time step."""
    for shape in ((30, 3, 32, 32), (30, 1, 8, 8), (30, 4, 2, 34, 34), (30, 1, 5, 12), (30, 2, 1, 9)):
        input_N, (height, width) = bytes_of(*shape), shape[-2:]
        examples = Examples(input_N, torch.zeros(30).long())
        loader = Loader(examples, 255.0, [0.4] * shape[-3], [0.2] * shape[-3], CPU)
        index_B = torch.randperm(30, generator=generator(5))[:17]
        alone, both, crop = (
            draw_augmentation(kind, 30, loader.padding, (height, width), generator(3))
            for kind in ("cutout", "crop-flip,cutout", "crop-flip")
        )
        assert alone is not None and both is not None and crop is not None and crop.hole_N2 is None
        assert alone.hole_N2 is not None and both.hole_N2 is not None
        assert torch.equal(alone.hole_N2, both.hole_N2) and torch.equal(crop.row_N, both.row_N)
        assert torch.equal(crop.mirrored_N, both.mirrored_N) and torch.equal(crop.column_N, both.column_N)
        for look, plain in ((alone, loader.input(index_B)), (both, loader.input(index_B, crop))):
            wanted = plain.clone()
            for place, i in enumerate(index_B.tolist()):
                row, column = both.hole_N2[i].tolist()
                tall, wide = -(-height // 2), -(-width // 2)
                for y in range(max(0, row - tall // 2), min(height, row - tall // 2 + tall)):
                    for x in range(max(0, column - wide // 2), min(width, column - wide // 2 + wide)):
                        wanted[..., place, :, y, x] = 0
            assert torch.equal(loader.input(index_B, look), wanted), shape
            assert (wanted != plain).any(), shape


def test_holes_lie_everywhere_and_have_a_quarter_of_an_image_where_no_edge_clips_them() -> None:
    look = draw_augmentation("cutout", 4000, (4, 2), (32, 16), generator())
    assert look is not None and look.hole_N2 is not None
    for axis, side in enumerate((32, 16)):
        counts = look.hole_N2[:, axis].bincount()
        assert len(counts) == side and int(counts.min()) > 4000 / side * 0.6
    loader = plain_loader(torch.ones(4000, 1, 32, 16, dtype=torch.uint8))
    holes_N = (loader.input(torch.arange(4000), look) == 0).sum((1, 2, 3))
    assert int(holes_N.max()) == 16 * 8 and int(holes_N.min()) == 8 * 4  # a corner leaves half of each side


def test_augment_takes_a_list_in_any_order() -> None:
    wanted = {"cutout,crop-flip": "crop-flip,cutout", "crop, cutout": "crop,cutout", "cutout": "cutout", "none": "none"}
    assert {text: canonical_augment(text) for text in wanted} == wanted
    keys = {resolved(augment=text)[0].key for text in ("crop-flip,cutout", "cutout,crop-flip")}
    assert len(keys) == 1 and resolved(augment="crop-flip")[0].key not in keys
    for text in ("", "flip", "crop,crop-flip", "cutout,cutout", "none,cutout", "cutout,"):
        with pytest.raises(BadInput, match="^--augment is none, or one or more of crop, crop-flip, nda"):
            canonical_augment(text)


def test_no_crop_and_no_mirror_is_the_image_itself() -> None:
    input_N = bytes_of(6, 3, 32, 32)
    middle = Augmentation(torch.full((6,), 4), torch.full((6,), 4), torch.zeros(6, dtype=torch.bool))
    loader = plain_loader(input_N)
    assert torch.equal(loader.input(torch.arange(6), middle), input_N.float())
    assert torch.equal(loader.input(torch.arange(6)), input_N.float())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_an_input_is_the_stored_value_over_scale_less_mean_over_std(dtype: torch.dtype, tolerance: float) -> None:
    input_N = bytes_of(9, 3, 32, 32)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    loader = Loader(Examples(input_N, torch.arange(9)), 255.0, mean, std, CPU, dtype)
    index_B = torch.tensor([8, 0, 3])
    shown = loader.input(index_B)
    assert shown.dtype == dtype and shown.shape == (3, 3, 32, 32)
    for place, i in enumerate(index_B.tolist()):
        for channel in range(3):
            wanted = (input_N[i, channel].double() / 255 - mean[channel]) / std[channel]
            torch.testing.assert_close(shown[place, channel].double(), wanted, rtol=0, atol=4 * tolerance)


def test_images_lie_channels_last_and_events_come_time_first() -> None:
    images = plain_loader(bytes_of(4, 3, 32, 32)).input(torch.arange(4))
    assert images.is_contiguous(memory_format=torch.channels_last)
    input_N = bytes_of(4, 5, 2, 34, 34)
    events = plain_loader(input_N).input(torch.tensor([2, 1]))
    assert events.shape == (5, 2, 2, 34, 34)
    assert torch.equal(events, input_N[[2, 1]].transpose(0, 1).float())
    assert events.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_a_digest_reports_other_labels_and_other_pixels() -> None:
    input_N, label_N = bytes_of(4, 1, 8, 8), torch.arange(4)
    changed = input_N.clone()
    changed[0, 0, 0, 0] += 1
    made = [Examples(input_N, label_N), Examples(changed, label_N), Examples(input_N, label_N.flip(0))]
    assert len({examples.digest().hexdigest() for examples in made}) == 3
    assert made[0].digest().digest() == Examples(input_N.clone(), label_N.clone()).digest().digest()
