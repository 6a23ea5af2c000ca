"""Changes of images in batches: crops, RandAugment, and the moves of event recordings. Each example has its own.

B examples, H rows, W columns, C channels. Images are [B, H, W, C], frames of events [T, B, H, W, C].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

NUM_CHANGES = 2  # changes of each image, as in torchvision's RandAugment
STRENGTH = 9 / 30  # share of the greatest strength, as its magnitude 9 of 31 bins
GREATEST_SHEAR, GREATEST_DEGREES, GREATEST_SHIFT, GREATEST_FACTOR = 0.3, 30.0, 150 / 331, 0.9
POSTERIZED_BITS = 8 - round(4 * STRENGTH)
CHANGES = (
    "identity shear-x shear-y translate-x translate-y rotate brightness color contrast sharpness posterize solarize "
    "autocontrast equalize".split()
)
GEOMETRIC = range(1, 6)  # places of the changes that move pixels
SIGNED = range(6, 10)  # places of the changes by a factor above or below 1
NDA_DEGREES = 30.0  # degrees; the largest rotation and shear, as the authors' code has them for CIFAR10-DVS
NDA_SHIFT = 5 / 48  # share of a side; the largest roll, likewise


def cropped(pixels: Tensor, row_B: Tensor, column_B: Tensor, mirrored_B: Tensor, padding: tuple[int, int]) -> Tensor:
    """Returns crops of the images, padded with zeros, and mirrors those of `mirrored_B`.

    Args:
        pixels: The images or frames.
        row_B: First row of each crop in the padded image.
        column_B: First column, likewise.
        mirrored_B: Whether the crop is mirrored.
        padding: Rows above and below, columns left and right.
    """
    (height, width), (rows, columns) = pixels.shape[-3:-1], padding
    column_BW = torch.arange(width, device=pixels.device).expand(len(row_B), -1)
    column_BW = torch.where(mirrored_B[:, None], width - 1 - column_BW, column_BW)
    column_BW = column_BW + column_B[:, None]
    row_BH = torch.arange(height, device=pixels.device) + row_B[:, None]
    return _picked(pad(pixels, (0, 0, columns, columns, rows, rows)), row_BH, column_BW)


def _picked(pixels: Tensor, row_BH: Tensor, column_BW: Tensor) -> Tensor:
    """Returns the pixels at these rows and columns of each example, in one gather of whole pixels."""
    height, width = pixels.shape[-3:-1]
    row_BH = torch.arange(len(row_BH), device=pixels.device)[:, None] * height + row_BH
    flat = row_BH[:, :, None] * width + column_BW[:, None, :]
    lead = pixels.shape[:-4]
    picked = pixels.reshape(*lead, -1, pixels.shape[-1]).index_select(len(lead), flat.flatten())
    return picked.view(*lead, *flat.shape, pixels.shape[-1])


def rand_augmented(pixels: Tensor, change_BR: Tensor, sign_BR: Tensor, scale: float) -> Tensor:
    """Returns the images after their changes, one after the other.

    Source: Cubuk et al., "RandAugment", NeurIPS 2020, with the changes and defaults of torchvision's `v2.RandAugment`: two
    changes of magnitude 9. Changes of pixel values are torchvision's functions. Changes that move pixels sample the
    nearest pixel for all examples at once, with torchvision's matrices.

    Args:
        pixels: Images of 1 or 3 channels.
        change_BR: Places in `CHANGES`.
        sign_BR: Their directions, 1 or -1.
        scale: The stored value of full intensity. Values are rounded to 256 levels from 0 to it.
    """
    whole = pixels.dtype == torch.uint8 and scale == 255
    image_BCHW = pixels.movedim(-1, -3)
    if not whole:
        image_BCHW = (image_BCHW * (255 / scale)).round().clamp(0, 255).to(torch.uint8)
    image_BCHW = image_BCHW.clone()
    for change_B, sign_B in zip(change_BR.T, sign_BR.T, strict=True):
        moved_M = ((change_B >= GEOMETRIC.start) & (change_B < GEOMETRIC.stop)).nonzero().squeeze(1)
        if len(moved_M):
            sides = image_BCHW.shape[-2], image_BCHW.shape[-1]
            matrix_M23 = _matrices(change_B[moved_M], sign_B[moved_M], sides)
            image_BCHW[moved_M] = moved(image_BCHW[moved_M], matrix_M23)
        for change, function in _functions().items():
            for sign in (1, -1) if change in SIGNED else (0,):
                member_M = ((change_B == change) & ((sign_B == sign) | (sign == 0))).nonzero().squeeze(1)
                if len(member_M):
                    image_BCHW[member_M] = function(image_BCHW[member_M], 1 + sign * STRENGTH * GREATEST_FACTOR)
    image = image_BCHW.movedim(-3, -1)
    return image if whole else image * (scale / 255)


def _functions() -> dict[int, Callable[[Tensor, float], Tensor]]:
    """Returns the changes of pixel values by their places: functions of images and a factor."""
    from torchvision.transforms.v2 import functional as f  # takes a second to import, and few runs need it

    functions: dict[str, Callable[[Tensor, float], Tensor]] = {
        "brightness": f.adjust_brightness,
        "color": f.adjust_saturation,
        "contrast": f.adjust_contrast,
        "sharpness": f.adjust_sharpness,
        "posterize": lambda image, factor: f.posterize(image, POSTERIZED_BITS),
        "solarize": lambda image, factor: f.solarize(image, 255 * (1 - STRENGTH)),
        "autocontrast": lambda image, factor: f.autocontrast(image),
        "equalize": lambda image, factor: f.equalize(image),
    }
    return {CHANGES.index(name): function for name, function in functions.items()}


def _matrices(change_M: Tensor, sign_M: Tensor, sides: tuple[int, int]) -> Tensor:
    """Returns the matrix of each change that moves pixels; see `moved`. [M, 2, 3]."""
    height, width = sides
    strength, angle = GREATEST_SHEAR * STRENGTH, math.radians(GREATEST_DEGREES * STRENGTH)
    shift_x, shift_y = (int(side * GREATEST_SHIFT * STRENGTH) for side in (width, height))
    cosine, sine = math.cos(angle), math.sin(angle)
    kinds = {  # for the sign 1: shears leave the corner where it is, and rotations the centre
        "shear-x": ((1, strength, strength * height / 2), (0, 1, 0)),
        "shear-y": ((1, 0, 0), (strength, 1, strength * width / 2)),
        "translate-x": ((1, 0, -shift_x), (0, 1, 0)),
        "translate-y": ((1, 0, 0), (0, 1, -shift_y)),
        "rotate": ((cosine, -sine, 0), (sine, cosine, 0)),
    }
    of_kind = torch.tensor([kinds[CHANGES[place]] for place in GEOMETRIC], device=change_M.device)
    matrix_M23 = of_kind[change_M - GEOMETRIC.start]
    # The diagonal is even in the strength, and all else is odd.
    odd = ~torch.eye(2, 3, dtype=torch.bool, device=change_M.device)
    return torch.where(odd & (sign_M[:, None, None] < 0), -matrix_M23, matrix_M23)


def moved(image_BCHW: Tensor, matrix_B23: Tensor) -> Tensor:
    """Returns images whose pixel at (x, y) is the given image's pixel nearest to matrix (x, y, 1); zero outside.

    x counts columns and y rows from the centre.
    """
    height, width = image_BCHW.shape[-2:]
    y_H, x_W = (torch.arange(side, device=matrix_B23.device) - (side - 1) / 2 for side in (height, width))
    place_HW3 = torch.stack([*torch.meshgrid(x_W, y_H, indexing="xy"), torch.ones(height, width, device=x_W.device)], 2)
    half = torch.tensor([width / 2, height / 2], device=x_W.device)
    grid_BHW2 = (place_HW3.view(1, -1, 3) @ (matrix_B23.transpose(1, 2) / half)).view(-1, height, width, 2)
    sampled = grid_sample(image_BCHW.float(), grid_BHW2, mode="nearest", padding_mode="zeros", align_corners=False)
    return sampled.to(image_BCHW.dtype)


def moved_recordings(pixels: Tensor, move_B: Tensor, amount_B2: Tensor) -> Tensor:
    """Returns recordings that are rolled, rotated or sheared along their rows, all frames alike.

    Source: Li, Kim, Park, Geller & Panda, "Neuromorphic Data Augmentation for Training Spiking Neural Networks", ECCV 2022,
    as their code augments CIFAR10-DVS: one of the three at random, by up to 5 of 48 pixels or 30 degrees. The paper's
    cutout and flip are `cutout` and `crop-flip` of `--augment`.

    Args:
        pixels: Frames [T, B, H, W, C].
        move_B: Places in `augmentation.MOVES`.
        amount_B2: How far each recording moves, from -1 to 1; see `Augmentation.amount_N2`.
    """
    steps, _, height, width, channels = pixels.shape
    reach = torch.tensor([int(side * NDA_SHIFT) for side in (height, width)], device=pixels.device)
    # All whole numbers of pixels from -reach to reach are equally likely.
    shift_B2 = ((amount_B2 + 1) / 2 * (2 * reach + 1)).floor().clamp_max(2 * reach) - reach
    shift_B2 = shift_B2.long() * (move_B == 0)[:, None]
    row_BH = (torch.arange(height, device=pixels.device) - shift_B2[:, :1]) % height
    column_BW = (torch.arange(width, device=pixels.device) - shift_B2[:, 1:]) % width
    pixels = _picked(pixels, row_BH, column_BW)
    turned_M = (move_B > 0).nonzero().squeeze(1)
    if not len(turned_M):
        return pixels
    angle_M = torch.deg2rad(NDA_DEGREES * amount_B2[turned_M, 0])
    is_shear_M, zero_M, one_M = move_B[turned_M] == 2, torch.zeros_like(angle_M), torch.ones_like(angle_M)
    rotation = [angle_M.cos(), -angle_M.sin(), zero_M, angle_M.sin(), angle_M.cos(), zero_M]
    shear = [one_M, angle_M.tan(), zero_M, zero_M, one_M, zero_M]
    entries = [torch.where(is_shear_M, of_shear, of_turn) for of_shear, of_turn in zip(shear, rotation, strict=True)]
    matrix_M23 = torch.stack(entries, 1).view(-1, 2, 3)
    image_MCHW = pixels[:, turned_M].permute(1, 0, 4, 2, 3).flatten(1, 2)
    image_MTCHW = moved(image_MCHW, matrix_M23).unflatten(1, (steps, channels))
    pixels[:, turned_M] = image_MTCHW.permute(1, 0, 3, 4, 2)
    return pixels
