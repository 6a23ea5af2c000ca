"""Arrays of a `.npz` file become examples unchanged; any other content is refused in one line with the file's name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sadp_bench.datasets import own_files
from sadp_bench.datasets.loading import load
from sadp_bench.datasets.npz import NPZ
from sadp_bench.runs.resolve import resolve
from sadp_bench.testing import check_dataset
from tests.commands import TINY, command, refused, the_record
from tests.datasets.helpers import channel_statistics, refusal

DRAW = np.random.default_rng(0)
LABELS = np.arange(40, dtype=np.int64) % 4


def values(*shape: int) -> np.ndarray:
    return DRAW.integers(0, 256, shape, dtype=np.uint8)


GREY, COLOUR, EVENTS = values(40, 9, 8), values(40, 3, 9, 8), values(40, 5, 2, 9, 8)
GOOD = {"x_train": GREY[:30], "y_train": LABELS[:30], "x_test": GREY[30:], "y_test": LABELS[30:]}


def written(folder: Path, arrays: dict[str, Any], name: str = "data.npz") -> Path:
    np.savez_compressed(folder / name, **arrays)
    return folder / name


def of(input_N: np.ndarray, label_N: np.ndarray = LABELS) -> dict[str, np.ndarray]:
    return {"x_train": input_N[:30], "y_train": label_N[:30], "x_test": input_N[30:], "y_test": label_N[30:]}


def loaded(folder: Path, arrays: dict[str, Any], timesteps: int = 4) -> Any:
    written(folder, arrays)
    return load(NPZ, "npz", folder, timesteps, {"file": "data.npz", "sha256": ""})


def test_each_layout_is_read_as_what_it_is(tmp_path: Path) -> None:
    rgba = values(40, 9, 8, 4)
    cases = [
        (GREY, GREY[:, None]),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 2, 3, 1), COLOUR),
        (np.asfortranarray(COLOUR), COLOUR),
        (GREY[:, None], GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (rgba, rgba.transpose(0, 3, 1, 2)),
    ]
    for given, expected in cases:
        data = loaded(tmp_path, of(given))
        assert not data.events and data.class_names == ("0", "1", "2", "3")
        assert np.array_equal(data.train.input_N.numpy(), expected[:30])
        assert np.array_equal(data.test.input_N.numpy(), expected[30:])
        assert (
            data.train.label_N.tolist() == LABELS[:30].tolist() and data.test.label_N.tolist() == LABELS[30:].tolist()
        )
        mean, std = channel_statistics(data.train, 255.0)
        assert data.mean == pytest.approx(mean) and data.std == pytest.approx(std)


def test_frames_of_events_stay_counts_and_have_the_steps_that_they_have(tmp_path: Path) -> None:
    data = loaded(tmp_path, of(EVENTS), timesteps=5)
    assert data.events and np.array_equal(data.train.input_N.numpy(), EVENTS[:30])
    assert (data.scale, data.mean, data.std) == (1.0, (0.0, 0.0), (1.0, 1.0))
    line = refusal(loaded, tmp_path, of(EVENTS), 4)
    assert "data.npz has recordings of 5 frames, not 4; give --timesteps 5" in line


def test_labels_may_be_of_any_whole_type_and_in_a_column(tmp_path: Path) -> None:
    for label_N in (LABELS.astype(np.uint8), LABELS.astype(">i2"), LABELS[:, None]):
        assert loaded(tmp_path, of(GREY, label_N)).train.label_N.tolist() == LABELS[:30].tolist()


def test_statistics_of_many_images_are_those_of_evenly_spaced_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "MOST_VALUES", 10 * COLOUR[0].size)
    data = loaded(tmp_path, of(COLOUR))
    sample = COLOUR[:30:3].astype(float) / 255
    assert data.mean == pytest.approx(sample.mean((0, 2, 3))) and data.std == pytest.approx(sample.std((0, 2, 3)))
    assert loaded(tmp_path, of(np.full((40, 9, 8), 7, np.uint8))).std == (1.0,)


def test_the_content_makes_the_run_wherever_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: dict[str, Any] = {"method": "full", "ratio": 0.0, "dataset": "npz", "batch_size": 8, "device": "cpu"}
    (tmp_path / "elsewhere").mkdir()
    first = written(tmp_path, GOOD)
    second = written(tmp_path / "elsewhere", GOOD, "mine.npz")
    monkeypatch.chdir(tmp_path / "elsewhere")
    network = {"backbone.width": 4}
    specs = [
        resolve({**run, "set": {**network, **more}}, tmp_path)[0]
        for more in ({}, {"dataset.file": str(second)}, {"dataset.file": "mine.npz"}, {"dataset.file": "data.npz"})
    ]
    assert len({spec.key for spec in specs}) == 1 and specs[0].dataset_options["sha256"]
    assert NPZ.locate(tmp_path) == first and NPZ.locate(tmp_path, file="mine.npz") == Path("mine.npz")
    assert NPZ.locate(tmp_path / "nowhere") is None
    written(tmp_path, of(COLOUR))
    again = {**run, "set": {**network, "dataset.sha256": specs[0].dataset_options["sha256"]}}
    assert "is another file: its SHA-256 is" in refusal(resolve, again, tmp_path)
    assert resolve({**run, "set": network}, tmp_path)[0].key != specs[0].key
    check_dataset("npz", data=tmp_path)


def test_a_run_on_a_file_trains_and_a_broken_file_is_one_line(tmp_path: Path) -> None:
    file = written(tmp_path, of(np.tile(COLOUR, (20, 1, 1, 1)), np.tile(LABELS, 20)))
    words = [
        "run",
        "--method",
        "random",
        "--ratio",
        0.5,
        "--dataset",
        "npz",
        *TINY,
        "--quiet",
        "--out",
        tmp_path / "runs",
    ]
    answer = command(*words, "--set", f"dataset.file={file}", "--train-examples", 20, "--batch-size", 8)
    assert answer.code == 0, answer.err
    assert the_record(tmp_path / "runs", "random")[1]["spec"]["dataset_options"]["file"] == str(file)
    file.write_bytes(file.read_bytes()[:500])
    refused(command(*words, "--set", f"dataset.file={file}"), "is no .npz file of x_train")
    refused(command(*words, "--data", tmp_path / "no"), "data.npz is not there", "--set dataset.file=PATH")


def raw(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return sink.getvalue()


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def pickled() -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **(GOOD | {"y_test": np.array([print] * 10, dtype=object)}))
    return sink.getvalue()


WHOLE = {name: npy(array) for name, array in GOOD.items()}
HUGE = WHOLE["x_train"].replace(
    b"(30, 9, 8), }" + b" " * 11, b"(3000000000000, 9, 8), }"
)  # the header keeps its length
BAD_ARRAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no test": ({name: GOOD[name] for name in ("x_train", "y_train")}, ("lacks x_test, y_test", "it has 'x_train'")),
    "other names": ({"images": GREY, "labels": LABELS}, ("lacks x_train, y_train, x_test, y_test", "'images'")),
    "nothing": ({}, ("lacks", "nothing")),
    "floats": (of(GREY / 255), ("x_train in float64", "uint8")),
    "int64": (of(GREY.astype(np.int64)), ("x_train in int64",)),
    "texts": (of(GREY, LABELS.astype(str)), ("y_train as <U", "whole numbers")),
    "float labels": (of(GREY, LABELS / 2), ("y_train as float64",)),
    "one-hot labels": (of(GREY, np.eye(4, dtype=int)[LABELS]), ("y_train as int64 [30, 4]",)),
    "flat images": (of(GREY.reshape(40, -1)), ("x_train of shape [30, 72]",)),
    "one image": (of(GREY[0]), ("x_train of shape",)),
    "six axes": (of(EVENTS[None].repeat(40, 0)), ("x_train of shape",)),
    "twelve channels": (of(values(40, 12, 9, 8)), ("[30, 12, 9, 8]", "neither is")),
    "two axes of channels": (of(values(40, 3, 9, 3)), ("[30, 3, 9, 3]", "both could be")),
    "events, channels last": (of(values(40, 5, 9, 8, 2)), ("[30, 5, 9, 8, 2]", "[N, T, C, H, W]")),
    "no images": (GOOD | {"x_test": GREY[:0], "y_test": LABELS[:0]}, ("x_test of shape [0, 9, 8]",)),
    "no pixels": (of(values(40, 0, 8)), ("x_train of shape [30, 0, 8]",)),
    "two shapes": (GOOD | {"x_test": values(10, 8, 8)}, ("two shapes: [9, 8] in x_train, [8, 8] in x_test",)),
    "two layouts": (GOOD | {"x_test": values(10, 3, 9, 8)}, ("two shapes",)),
    "too few labels": (GOOD | {"y_test": LABELS[:9]}, ("10 examples in x_test, and 9 labels in y_test",)),
    "a label below 0": (of(GREY, LABELS - 1), ("y_train from -1 to 2",)),
    "a gap": (of(GREY, LABELS * 2), ("labels up to 6, and none of 1",)),
    "a large label": (of(GREY, np.where(LABELS == 3, 10**12, LABELS)), ("labels up to 1000000000000, and none of 3",)),
    "beyond int64": (of(GREY, np.where(LABELS == 3, 2**64 - 1, LABELS).astype(np.uint64)), ("y_train from 0 to",)),
    "labels from 1": (of(GREY, LABELS + 1), ("labels up to 4, and none of 0",)),
    "one class": (of(GREY, LABELS * 0), ("two classes at least",)),
}
BAD_FILES = {
    "empty": b"",
    "text": b"x_train,y_train\n",
    "a single array": npy(GREY),
    "pickles": pickled(),
    "cut": raw(**WHOLE)[:-30],
    "members cut": raw(**WHOLE | {"x_train": WHOLE["x_train"][:-30]}),
    "a member that is no array": raw(**WHOLE | {"x_train": b"\x93NUMPYnot"}),
    "a huge shape": raw(**WHOLE | {"x_train": HUGE}),
}


def test_every_bad_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    for name, (arrays, words) in BAD_ARRAYS.items():
        line = refusal(loaded, tmp_path, arrays)
        assert all(word in line for word in words), f"{name}: {line}"
        assert "data.npz" in line or "contract" in line, f"{name}: {line}"
    assert HUGE != WHOLE["x_train"]
    for name, content in BAD_FILES.items():
        (tmp_path / "data.npz").write_bytes(content)
        line = refusal(load, NPZ, "npz", tmp_path, 4, {})
        assert "data.npz is no .npz file of x_train" in line, f"{name}: {line}"
    (tmp_path / "data.npz").unlink()
    (tmp_path / "data.npz").mkdir()
    assert "no regular file" in refusal(load, NPZ, "npz", tmp_path, 4, {})
