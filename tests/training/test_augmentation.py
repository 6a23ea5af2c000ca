"""RandAugment and NDA against torchvision one by one, and mixed examples against their definition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from sadp_bench.capture.signals import Signal
from sadp_bench.core.errors import BadInput
from sadp_bench.core.rng import stream
from sadp_bench.datasets.examples import Examples
from sadp_bench.records.fields import AUGMENTATIONS
from sadp_bench.runs.material import Material
from sadp_bench.runs.resolve import _check_augment
from sadp_bench.training.augmentation import MOVES, Augmentation, draw_augmentation
from sadp_bench.training.data import Loader
from sadp_bench.training.image_changes import CHANGES, NDA_DEGREES, SIGNED, moved_recordings, rand_augmented
from tests.small_runs import Chosen, resolved, small_bench

CPU = torch.device("cpu")
NAMES = dict(zip(CHANGES, v2.RandAugment._AUGMENTATION_SPACE, strict=True))  # torchvision's name of each change


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Returns an image, [C, H, W], with coarse structure, so that a wrong shift or sign is far off."""
    coarse = torch.randint(0, 256, (1, channels, 4, 4), generator=generator(seed)).float()
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].round().to(torch.uint8)


def torchvisions(image: Tensor, change: str, sign: int) -> Tensor:
    """Returns an image, [C, H, W], after one change, as `v2.RandAugment` makes it with its defaults."""
    theirs = v2.RandAugment()
    magnitudes, signed = theirs._AUGMENTATION_SPACE[NAMES[change]]
    table = magnitudes(theirs.num_magnitude_bins, *image.shape[-2:])
    magnitude = 0.0 if table is None else float(table[theirs.magnitude]) * (sign if signed else 1)
    return theirs._apply_image_or_video_transform(
        image, NAMES[change], magnitude, interpolation=theirs.interpolation, fill=theirs._fill
    )


@pytest.mark.parametrize("channels, height, width", [(3, 32, 32), (1, 28, 28), (3, 20, 30)])
def test_every_change_of_a_batch_is_torchvisions_change_of_each_image(channels: int, height: int, width: int) -> None:
    every = [(place, sign) for place in range(len(CHANGES)) for sign in (1, -1)]
    images = [picture(channels, height, width, seed) for seed in range(len(every))]
    change_BR, sign_BR = torch.tensor(every).T[:, :, None]
    shown = rand_augmented(torch.stack(images).movedim(1, -1), change_BR, sign_BR, 255.0).movedim(-1, 1)
    for image, found, (place, sign) in zip(images, shown, every, strict=True):
        wanted = torchvisions(image, CHANGES[place], sign)
        assert (found.int() - wanted.int()).abs().max() <= 1, (CHANGES[place], sign)
        assert (found == wanted).float().mean() > 0.97, (CHANGES[place], sign)
        opposite = torchvisions(image, CHANGES[place], -sign)
        if place in SIGNED or 1 <= place <= 5:  # the directions differ, but for the colour of grey images
            assert channels == 1 and CHANGES[place] == "color" or not torch.equal(wanted, opposite), CHANGES[place]


def test_two_changes_follow_one_another() -> None:
    images = [picture(3, 32, 32, seed) for seed in range(30)]
    change_BR = torch.randint(0, len(CHANGES), (30, 2), generator=generator())
    sign_BR = 1 - 2 * torch.randint(0, 2, (30, 2), generator=generator(1))
    shown = rand_augmented(torch.stack(images).movedim(1, -1), change_BR, sign_BR, 255.0).movedim(-1, 1)
    for i, image in enumerate(images):
        for change, sign in zip(change_BR[i].tolist(), sign_BR[i].tolist(), strict=True):
            image = torchvisions(image, CHANGES[change], sign)
        assert (shown[i].int() - image.int()).abs().float().mean() < 0.5


def test_images_of_another_scale_change_alike() -> None:
    sixteenths = torch.randint(0, 17, (28, 8, 8, 1), generator=generator(), dtype=torch.uint8)
    change_BR, sign_BR = torch.arange(14).repeat(2)[:, None], torch.tensor([1] * 14 + [-1] * 14)[:, None]
    of_bytes = rand_augmented((sixteenths * (255 / 16)).round().to(torch.uint8), change_BR, sign_BR, 255.0)
    torch.testing.assert_close(rand_augmented(sixteenths, change_BR, sign_BR, 16.0), of_bytes * (16 / 255))


def test_a_recording_is_rolled_rotated_or_sheared_as_torch_and_torchvision_do() -> None:
    steps, number, height, width = 3, 24, 48, 40
    frames = torch.stack([picture(2 * steps, height, width, seed) for seed in range(number)])  # [B, T*C, H, W]
    pixels = frames.unflatten(1, (steps, 2)).permute(1, 0, 3, 4, 2).contiguous()
    move_B = torch.arange(number) % 3
    amount_B2 = 2 * torch.rand(number, 2, generator=generator()) - 1
    shown = moved_recordings(pixels.clone(), move_B, amount_B2).permute(1, 0, 4, 2, 3).flatten(1, 2)
    for i in range(number):
        degrees = NDA_DEGREES * float(amount_B2[i, 0])
        name = MOVES[int(move_B[i])]
        if name == "roll":
            reach = 5, 4  # of 48 and of 40 pixels
            shifts = [int((float(a) + 1) / 2 * (2 * r + 1)) - r for a, r in zip(amount_B2[i], reach, strict=True)]
            wanted = torch.roll(frames[i], shifts, (1, 2))
        elif name == "rotate":
            wanted = functional.rotate(frames[i], degrees)
        else:
            wanted = functional.affine(frames[i], angle=0, translate=[0, 0], scale=1, shear=[degrees, 0.0])
        assert (shown[i] == wanted).float().mean() > 0.999, name


def test_every_shift_of_a_roll_is_as_likely_and_reaches_five_of_48_pixels() -> None:
    look = draw_augmentation("nda", 9000, (4, 4), (48, 48), generator())
    assert look is not None and look.move_N is not None and look.amount_N2 is not None
    assert look.move_N.bincount().min() > 2800
    marked = torch.zeros(1, 9000, 48, 48, 1, dtype=torch.uint8)
    marked[:, :, 20, 20] = 1
    rows = moved_recordings(marked, torch.zeros(9000).long(), look.amount_N2)[0, ..., 0].amax(2).float().argmax(1) - 20
    counts = (rows + 5).bincount()
    assert len(counts) == 11 and counts.min() > 0.8 * 9000 / 11


def mixed_loader(number: int = 60) -> tuple[Loader, Tensor]:
    input_N = torch.randint(0, 256, (number, 3, 12, 10), generator=generator(), dtype=torch.uint8)
    label_N = torch.randint(0, 7, (number,), generator=generator(1))
    loader = Loader(Examples(input_N, label_N), 1.0, [0.0] * 3, [1.0] * 3, CPU, num_classes=7)
    return loader, input_N.float()


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "mixup,cutmix"])
def test_a_mixed_example_and_its_target_are_shares_of_itself_and_its_partner(kind: str) -> None:
    loader, input_N = mixed_loader()
    look = draw_augmentation(kind, 60, loader.padding, loader.sides, generator(2))
    assert look is not None and look.partner_N is not None and look.share_N is not None and look.box_N4 is not None
    index_B = torch.randperm(60, generator=generator(3))[:25]
    shown, target = loader.input(index_B, look), loader.target(index_B, look)
    for place, i in enumerate(index_B.tolist()):
        own, partner = input_N[i], input_N[look.partner_N[i]]
        top, bottom, left, right = look.box_N4[i].tolist()
        share_HW = torch.full((12, 10), float(look.share_N[i]))
        share_HW[top:bottom, left:right] = 0
        if share_HW.mean() < 0.5:
            share_HW = 1 - share_HW
        torch.testing.assert_close(shown[place], share_HW * own + (1 - share_HW) * partner)
        wanted = torch.zeros(7)
        wanted[loader.label_N[i]] += share_HW.mean()
        wanted[loader.label_N[look.partner_N[i]]] += 1 - share_HW.mean()
        torch.testing.assert_close(target[place], wanted)
        assert float(target[place, loader.label_N[i]]) >= 0.5 - 1e-6
        if kind == "cutmix":
            assert bool(((shown[place] == own) | (shown[place] == partner)).all())


def test_shares_have_the_published_distributions_and_cutmix_has_its_boxes() -> None:
    mixup, cutmix, both = (
        draw_augmentation(kind, 20_000, (4, 4), (32, 32), generator()) for kind in ("mixup", "cutmix", "mixup,cutmix")
    )
    for look in (mixup, cutmix, both):
        assert look is not None and look.share_N is not None and look.box_N4 is not None
        area_N = (look.box_N4[:, 1] - look.box_N4[:, 0]) * (look.box_N4[:, 3] - look.box_N4[:, 2]) / 32**2
        boxed_N = look.share_N == 1
        if look is mixup:
            assert not bool(area_N.any())
        if look is both:
            assert 9700 < int(boxed_N.sum()) < 10_300
        if look is not cutmix:
            assert stats.kstest(look.share_N[~boxed_N].double().numpy(), stats.beta(0.5, 0.5).cdf).statistic < 0.02
        if look is not mixup:  # A box that no edge clips has the area that was drawn, but for whole pixels.
            low, high = look.box_N4[:, ::2] > 0, look.box_N4[:, 1::2] < 32
            inner_N = boxed_N & low.all(1) & high.all(1)
            sides_N2 = look.box_N4[:, 1::2] - look.box_N4[:, ::2]
            assert torch.equal(sides_N2[inner_N, 0], sides_N2[inner_N, 1])
            assert 0.3 < float(area_N[boxed_N].mean()) < 0.42  # 1/2, less what the edges clip


@pytest.mark.parametrize("kind", ["crop-flip,randaugment,cutout,mixup,cutmix", "crop,nda,mixup,cutmix"])
def test_an_example_is_shown_alike_whatever_else_is_in_the_batch(kind: str) -> None:
    shape = (40, 3, 2, 16, 16) if "nda" in kind.split(",") else (40, 3, 16, 16)
    input_N = torch.randint(0, 256, shape, generator=generator(), dtype=torch.uint8)
    channels = shape[-3]
    examples = Examples(input_N, torch.arange(40) % 7)
    loader = Loader(examples, 255.0, [0.4] * channels, [0.3] * channels, CPU, num_classes=7)
    look = draw_augmentation(kind, 40, loader.padding, loader.sides, generator(5))
    whole, targets, batch = loader.input(torch.arange(40), look), loader.target(torch.arange(40), look), len(shape) - 4
    for index_B in (torch.tensor([7]), torch.tensor([30, 7, 2, 19])):
        torch.testing.assert_close(loader.input(index_B, look), whole.index_select(batch, index_B))
        torch.testing.assert_close(loader.target(index_B, look), targets[index_B])


def test_runs_with_a_seed_show_an_example_alike_whatever_the_method_keeps() -> None:
    shown: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for method, ratio in (("full", 0.0), ("random", 0.5)):
        bench = small_bench(method=method, ratio=ratio, epochs=1, augment="crop,randaugment,mixup,cutmix")
        seen = shown[method] = {}

        def note(index_B: Tensor, look: Augmentation | None, made: Any = bench.data, seen: Any = seen) -> Tensor:
            input: Tensor = Loader.input(made, index_B, look)
            if look is not None:
                targets = made.target(index_B, look)
                seen |= {int(i): (input[place], targets[place]) for place, i in enumerate(index_B)}
            return input

        bench.data.input = note  # type: ignore[method-assign]
        list(bench.rows())
    assert len(shown["full"]) == 130 and len(shown["random"]) == 65
    for i, (input, target) in shown["random"].items():
        torch.testing.assert_close(input, shown["full"][i][0])
        torch.testing.assert_close(target, shown["full"][i][1])


@pytest.mark.parametrize("loss", ["mean", "step", "step-mse-onehot"])
def test_losses_and_errors_of_mixed_examples_are_those_of_their_targets(loss: str) -> None:
    pruner = Chosen(torch.arange(50), watch=frozenset({Signal.LOGIT_ERRORS}))
    bench = small_bench(pruner, epochs=1, loss=loss, augment="mixup,cutmix", label_smoothing=0.1)
    list(bench.rows())
    looks = stream(bench.spec.seed, "augmentation", 0)
    look = draw_augmentation(bench.spec.augment, 130, bench.data.padding, bench.data.sides, looks)
    (seen,) = pruner.seen
    assert torch.equal(seen.label_B, bench.data.label_N[seen.index_B])
    mixed_BC = bench.data.target(seen.index_B, look)
    target_BC = 0.9 * mixed_BC + 0.1 / 10
    log_p = (seen.logits_TBC.mean(0, keepdim=True) if loss == "mean" else seen.logits_TBC).log_softmax(2)
    entropy_B = -(target_BC * log_p).sum(2).mean(0)
    error_TBC = (log_p.exp() - target_BC).expand_as(seen.logits_TBC) / 2  # T = 2
    if loss == "step-mse-onehot":
        distance = seen.logits_TBC - mixed_BC
        entropy_B = 0.95 * entropy_B + 0.05 * distance.square().mean((0, 2))
        error_TBC = 0.95 * error_TBC + 0.05 * 2 * distance / 20
    torch.testing.assert_close(seen.loss_B, entropy_B, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen.watched[Signal.LOGIT_ERRORS], error_TBC, rtol=1e-4, atol=1e-6)
    assert float((mixed_BC.amax(1) < 0.999).float().mean()) > 0.3


def test_parts_that_mean_nothing_for_the_data_are_refused_in_one_line() -> None:
    spec, material = resolved(augment="randaugment")
    two_channels = Examples(torch.zeros(4, 2, 8, 8, dtype=torch.uint8), torch.zeros(4).long())
    for events, train, line in ((True, material.train, "count events; take nda"), (False, two_channels, "have 2")):
        with pytest.raises(BadInput, match=line):
            _check_augment(spec, Material(SimpleNamespace(events=events), train, train))  # type: ignore[arg-type]


def test_the_parts_are_those_of_the_spec() -> None:
    for part in AUGMENTATIONS:
        assert draw_augmentation(part, 5, (1, 1), (8, 8), generator()) is not None
