"""Every planted leak is found, and data without leaks have none."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sadp_bench.datasets import leaks
from sadp_bench.datasets.base import Dataset
from sadp_bench.datasets.examples import Examples
from sadp_bench.datasets.leaks import NEAR, find_leaks
from tests.commands import command, refused
from tests.datasets.images import classes, encoded, picture, write


class Made(Dataset):
    """Examples of a test.

    Source: the tests.
    """

    mean, std, class_names = (0.5,), (0.5,), ("even", "odd")

    def __init__(self, train_N: Tensor, test_N: Tensor, events: bool = False) -> None:
        self.train, self.test = (Examples(part, torch.arange(len(part)) % 2) for part in (train_N, test_N))
        self.events = events

    @classmethod
    def locate(cls, root: Path) -> Path | None:
        return None


def images(number: int, side: int = 32, channels: int = 3, seed: int = 0) -> Tensor:
    """Returns different images like photographs: structure at all sizes, the fine part in brightness alone."""
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(number, channels, side, side)
    for coarse in (2, 4, 8, 16, 32):
        noise = torch.randn(number, channels if coarse <= 8 else 1, coarse, coarse, generator=generator)
        total += torch.nn.functional.interpolate(noise, (side, side), mode="bilinear") / coarse
    return (128 + 80 * total).clamp(0, 255).byte()


def recording(steps: int, side: int = 32, seed: int = 0) -> Tensor:
    """Counts of events of a moving edge and noise, [steps, 2, side, side]."""
    draw = np.random.default_rng(seed)
    rate = 0.05 * draw.random((2, side, side)) + np.zeros((steps, 1, 1, 1))
    for step in range(steps):
        rate[step, :, :, (3 * step + seed) % side] += 2
    return torch.from_numpy(draw.poisson(rate).clip(0, 255).astype(np.uint8))


def jpeg(image: Tensor, quality: int) -> Tensor:
    content = encoded(image.permute(1, 2, 0).numpy(), "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).copy()).permute(2, 0, 1)


def test_copies_that_were_stored_anew_brightened_or_cut_in_contrast_are_found_and_nothing_else() -> None:
    train_N, test_N = images(300), images(80, seed=1)
    planted = {3: 17, 20: 0, 41: 299, 79: 150, 60: 33}
    for number, (test, train) in enumerate(planted.items()):
        image = train_N[train]
        test_N[test] = [
            image,
            jpeg(image, 90),
            (image.float() * 0.8 + 20).byte(),
            (image.int() + torch.randint(-4, 5, image.shape)).clamp(0, 255).byte(),
            (image.float() * 0.9).byte(),
        ][number]
    found = find_leaks(Made(train_N, test_N))
    assert {pair.test: pair.train for pair in found.pairs} == planted and not found.shared_files
    assert {pair.kind for pair in found.pairs} == {"example"} and (found.num_test, found.num_train) == (80, 300)
    for pair in found.pairs:
        pixels = [of[at].flatten(1).double() for of, at in ((test_N, pair.test), (train_N, pair.train))]
        centred = [(of - of.mean(1, keepdim=True)).flatten().numpy() for of in pixels]
        assert pair.correlation == pytest.approx(np.corrcoef(*centred)[0, 1], abs=1e-4) and pair.correlation >= NEAR


def test_overlapping_windows_of_one_recording_are_found_and_windows_of_others_are_not() -> None:
    steps = 8
    tapes = [recording(40, seed=seed) for seed in range(12)]
    train_N = torch.stack([tape[start : start + steps] for tape in tapes for start in (0, 12)])
    others = [recording(steps, seed=100 + seed) for seed in range(9)]
    test_N = torch.stack([*others, tapes[4][3 : 3 + steps], tapes[7][8 : 8 + steps], tapes[2][24:32]])
    found = find_leaks(Made(train_N, test_N, events=True))
    assert {(pair.kind, pair.test, pair.train) for pair in found.pairs} == {("frame", 9, 8), ("frame", 10, 15)}
    test_N[11] = train_N[5]
    pairs = {(pair.kind, pair.test, pair.train) for pair in find_leaks(Made(train_N, test_N, events=True)).pairs}
    assert pairs == {("frame", 9, 8), ("frame", 10, 15), ("example", 11, 5)}


def test_vectors_grey_images_and_blank_inputs_are_compared_too() -> None:
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randint(0, 256, (90, 20, 1, 1, 12), generator=draw, dtype=torch.uint8)
    made = Made(vectors[:60], torch.cat([vectors[60:], vectors[7:8]]), events=True)
    made.vectors = True  # type: ignore[misc]
    assert [(pair.test, pair.train) for pair in find_leaks(made).pairs] == [(30, 7)]
    grey = images(50, 8, 1)
    grey[5] = 0
    blank = torch.cat([torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.full((1, 1, 8, 8), 9).byte(), grey[3:4]])
    assert [(pair.test, pair.train) for pair in find_leaks(Made(grey, blank)).pairs] == [(2, 3)]


def test_of_large_parts_evenly_spaced_examples_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "MOST_TRAIN", 100)
    monkeypatch.setattr(leaks, "MOST_TEST", 20)
    train_N = images(300, 8, 1)
    found = find_leaks(Made(train_N, train_N[:60]))
    assert (found.num_train, found.num_test) == (100, 20)
    assert {(pair.test, pair.train) for pair in found.pairs} == {(place, place) for place in range(0, 60, 3)}


def test_the_command_answers_in_a_sentence_then_in_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {f"{part}/{name}/{number}.png": encoded(images(1, 16, 3, seed)[0].permute(1, 2, 0).numpy())
             for part, seeds in (("train", 40), ("val", 8)) for number in range(seeds) for name in ("cat", "dog")
             for seed in [1000 * (part == "val") + 100 * (name == "dog") + number]}  # fmt: skip
    files["val/dog/copy.png"] = files["train/cat/7.png"]
    folder = write(tmp_path / "mine", files)
    words = ["doctor", "--leaks", "imagefolder", "--set", f"dataset.folder={folder}", "--set", "dataset.side=16"]
    answer = command(*words)
    lines = answer.out.splitlines()
    assert answer.code == 0, answer
    assert lines[0] == "imagefolder: 1 of 17 test examples (5.9 %) are near-equal to training examples."
    assert lines[3].split() == "test class train class correlation kind".split()
    assert lines[4].split() == "val/dog/copy.png dog train/cat/7.png cat 1.0000 example".split()
    [pair] = json.loads(command(*words, "--json").out)["pairs"]
    assert (pair["test_file"], pair["train_file"]) == ("val/dog/copy.png", "train/cat/7.png")
    (folder / "val/dog/copy.png").unlink()
    clean = "imagefolder: no leak found; none of 16 test examples is near-equal to one of 80 training examples."
    assert command(*words).out.splitlines()[0] == clean
    refused(command("doctor", "--leaks", "imagefolde"), "did you mean 'imagefolder'")
    refused(command(*words, "--set", "backbone.width=3"), "--set takes dataset.KEY=VALUE here, not 'backbone.width'")
    refused(command(*words, "--timesteps", 0), "--timesteps is a number from 1")
    refused(command("doctor", "--timesteps", 3), "are for --leaks DATASET")


def test_a_file_in_both_parts_is_named() -> None:
    made: Any = Made(images(4, 8, 1), images(2, 8, 1, seed=1))
    made.file_names = {"train": ["a", "a", "b", "c"], "test": ["b", "d"]}
    assert find_leaks(made).shared_files == ["b"]


def test_a_pack_is_examined_as_its_pixels(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", classes(12, 12) | {"a/x.png": encoded(picture(seed=999))})
    assert command("pack", folder, "--side", 16, "--to", tmp_path / "p").code == 0
    answer = command("doctor", "--leaks", "pack", "--set", f"dataset.file={tmp_path / 'p'}", "--json")
    assert answer.code == 0 and json.loads(answer.out)["train_examples"] == 23, answer
