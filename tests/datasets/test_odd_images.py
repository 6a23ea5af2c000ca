"""Odd and damaged images and folders: read as PIL reads them, or refused in one line, and nothing half-written."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sadp_bench.datasets import decoding, image_pool
from sadp_bench.datasets.decoding import decode
from sadp_bench.datasets.imagefolder import ImageFolder
from sadp_bench.datasets.loading import load
from tests.commands import TINY, command, refused
from tests.datasets.helpers import files_below, refusal
from tests.datasets.images import SIDE, classes, encoded, picture, png, png16, png_chunk, write

RGB, GREY, RGBA = picture(), picture(channels=1)[..., 0], picture(channels=4)
VALUE16 = (np.arange(SIDE * SIDE * 3, dtype=np.uint32) * 65535 // (SIDE * SIDE * 3 - 1)).astype(np.uint16)
VALUE16 = VALUE16.reshape(SIDE, SIDE, 3)
BITS = np.array([[(x // 4 + y // 4) % 2 for x in range(SIDE)] for y in range(SIDE)], np.uint8)


def pil(image: np.ndarray, mode: str = "") -> Image.Image:
    return Image.fromarray(image).convert(mode) if mode else Image.fromarray(image)


def palette(transparent: bool) -> bytes:
    image = pil(RGB).quantize(32)
    return encoded(image, transparency=3) if transparent else encoded(image)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pil(picture(SIDE, SIDE + 8)), "JPEG", quality=95, exif=exif)


def moving(form: str) -> bytes:
    frames = [pil(picture(seed=seed)) for seed in range(3)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)


JPEG, PNG, WEBP = encoded(RGB, "JPEG", quality=95), encoded(RGB), encoded(RGB, "WEBP", lossless=True)

# The content, and each value's tolerance to PIL's, by name: the two use different decoders for JPEG and lossy WebP.
READ: dict[str, tuple[bytes, int]] = {
    "grey JPEG": (encoded(GREY, "JPEG", quality=95), 2),
    "CMYK JPEG": (encoded(pil(RGB, "CMYK"), "JPEG", quality=95), 4),
    "progressive JPEG": (encoded(RGB, "JPEG", quality=95, progressive=True), 2),
    "JPEG with restarts": (encoded(RGB, "JPEG", quality=95, restart_marker_blocks=1), 2),
    "JPEG of full colour": (encoded(RGB, "JPEG", quality=95, subsampling=0), 2),
    "JPEG of odd sides": (encoded(picture(17, 19), "JPEG", quality=95), 2),
    "JPEG with a comment": (encoded(RGB, "JPEG", quality=95, comment=b"\xff\xd8" * 9000), 2),
    "JPEG with a profile": (encoded(RGB, "JPEG", quality=95, icc_profile=bytes(70_000)), 2),
    "JPEG and rubbish": (JPEG + b"rubbish", 2),
    "JPEG of one pixel": (encoded(RGB[:1, :1], "JPEG"), 2),
    "grey PNG": (encoded(GREY), 0),
    "PNG of one bit": (png(SIDE, SIDE, 1, 0, b"".join(b"\0" + np.packbits(row).tobytes() for row in BITS)), 0),
    "PNG with alpha": (encoded(RGBA), 0),
    "grey PNG with alpha": (encoded(pil(RGBA, "LA")), 0),
    "PNG of a palette": (palette(transparent=False), 0),
    "PNG of a transparent palette": (palette(transparent=True), 0),
    "animated PNG": (moving("PNG"), 0),
    "PNG with a text": (PNG[:33] + png_chunk(b"tEXt", b"Comment\0" + b"x" * 9000) + PNG[33:], 0),
    "tall PNG": (encoded(picture(500, SIDE)), 0),
    "wide PNG": (encoded(picture(SIDE, 500)), 0),
    "lossy WebP": (encoded(RGB, "WEBP", quality=95), 3),
    "lossless WebP": (WEBP, 0),
    "WebP with alpha": (encoded(RGBA, "WEBP", lossless=True, exact=True), 0),
}


def by_pil(content: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return np.asarray(image.crop((left, top, left + short, top + short)))


def test_png_files_have_the_pixels_that_were_written() -> None:
    expected = {
        "grey PNG": np.repeat(GREY[..., None], 3, 2),
        "PNG of one bit": np.repeat(255 * BITS[..., None], 3, 2),
        "PNG with alpha": RGBA[..., :3],
        "animated PNG": RGB,
        "PNG with a text": RGB,
        "tall PNG": picture(500, SIDE)[242:258],
        "wide PNG": picture(SIDE, 500)[:, 242:258],
    }
    for name, pixels in expected.items():
        assert np.array_equal(decode(READ[name][0], SIDE).numpy(), pixels), name


def test_odd_images_are_read_as_pil_reads_them() -> None:
    for orientation in range(1, 9):
        READ[f"JPEG of orientation {orientation}"] = turned(orientation), 2
    for name, (content, tolerance) in READ.items():
        expected = by_pil(content)
        found = decode(content, len(expected)) if len(expected) > 3 else decode(content, 4)[:1, :1]
        assert found.dtype == torch.uint8 and found.shape == expected.shape, name
        off = int(np.abs(found.numpy().astype(int) - expected.astype(int)).max())
        assert off <= tolerance, f"{name}: {off} off"


def test_of_sixteen_bits_the_upper_eight_remain() -> None:
    upper = VALUE16 // 256
    assert np.array_equal(decode(png16(VALUE16), SIDE).numpy(), upper)
    grey = decode(png16(VALUE16[..., 0]), SIDE).numpy()
    assert np.array_equal(grey, np.repeat(upper[..., :1], 3, 2))


def jpeg_of(height: int, width: int) -> bytes:
    """Returns a JPEG file whose header states another size."""
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + struct.pack(">HH", height, width) + JPEG[place + 4 :]


def png_of(height: int, width: int) -> bytes:
    return png(width, height, 8, 2, b"\0" * 10)


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


# The content of an image file, and words of the line about it, by name.
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "one byte": (b"\xff", "is no JPEG, PNG or WebP file: it begins with b'\\xff'"),
    "text": (b"404: Not Found", "begins with b'404: Not'"),
    "web page": (b"<!DOCTYPE html><html>", "is no JPEG, PNG or WebP file"),
    "GIF": (encoded(pil(RGB).quantize(32), "GIF"), "begins with b'GIF8"),
    "animated GIF": (moving("GIF"), "begins with b'GIF8"),
    "BMP": (encoded(RGB, "BMP"), "begins with b'BM"),
    "TIFF": (encoded(RGB, "TIFF"), "is no JPEG, PNG or WebP file"),
    "PPM": (encoded(RGB, "PPM"), "is no JPEG, PNG or WebP file"),
    "PDF": (b"%PDF-1.7\n", "is no JPEG, PNG or WebP file"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt ", "is no JPEG, PNG or WebP file"),
    "zeros": (bytes(999), "is no JPEG, PNG or WebP file"),
    "JPEG, three bytes": (JPEG[:3], "ends within its header"),
    "JPEG, header": (JPEG[: JPEG.index(b"\xff\xc0")], "ends within its header"),
    "JPEG without scan": (JPEG[: JPEG.index(b"\xff\xda")], "cannot be decoded"),
    "JPEG, half": (JPEG[: (JPEG.index(b"\xff\xda") + len(JPEG)) // 2], "cannot be decoded"),
    "JPEG, end missing": (JPEG[:-40], "cannot be decoded"),
    "JPEG, no marker": (JPEG[:20] + bytes(30) + JPEG[50:], "JPEG file"),
    "JPEG of 4 thousand million pixels": (jpeg_of(65_500, 65_500), "65,500 x 65,500 pixels are more than"),
    "JPEG of no height": (jpeg_of(0, SIDE), "cannot be decoded"),
    "PNG, signature": (PNG[:8], "ends within its header"),
    "PNG, header": (PNG[:30], "cannot be decoded"),
    "PNG, half": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "PNG, end missing": (PNG[:-20], "cannot be decoded"),
    "PNG, header damaged": (changed(PNG, 26), "the chunk at byte 8 has a wrong checksum"),
    "PNG, checksum of pixels": (changed(PNG, len(PNG) - 14), "has a wrong checksum"),
    "PNG, pixels damaged": (png(SIDE, SIDE, 8, 2, b"\7" * SIDE * (3 * SIDE + 1)), "cannot be decoded"),
    "PNG, no compressed pixels": (
        PNG[:33] + png_chunk(b"IDAT", b"x" * 99) + png_chunk(b"IEND", b""),
        "cannot be decoded",
    ),
    "PNG without pixels": (PNG[:33] + png_chunk(b"IEND", b""), "cannot be decoded"),
    "PNG of ten thousand million pixels": (png_of(100_000, 100_000), "100,000 x 100,000 pixels are more than"),
    "PNG of no width": (png_of(SIDE, 0), "cannot be decoded"),
    "PNG, too few rows": (png(SIDE, SIDE, 8, 2, b"\0" * 10), "cannot be decoded"),
    "WebP, header": (WEBP[:16], "cannot be decoded"),
    "WebP, half": (WEBP[: len(WEBP) // 2], "cannot be decoded"),
    "animated WebP": (moving("WEBP"), "cannot be decoded"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loaded(root: Path, **settings: Any) -> Any:
    return load(ImageFolder, "imagefolder", root, 4, {"folder": "mine", "side": 8, **EMPTY, **settings})


EMPTY = {"split": "", "sha256": "", "test_list": ""}


def test_each_damaged_image_is_named_in_one_line_and_nothing_is_left(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "mine", classes(2, 2))
    for name, (content, words) in REFUSED.items():
        (tmp_path / "mine" / "a" / "odd.jpg").write_bytes(content)
        line = refusal(loaded, tmp_path)
        assert str(tmp_path / "mine" / "a" / "odd.jpg") in line and words in line, f"{name}: {line}"
        assert [file for file in files_below(cache) if file.endswith((".u8", ".part"))] == [], name


def test_all_damaged_images_are_found_in_one_pass(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_pool, "CHUNK", 8)
    write(tmp_path / "mine", classes(30, 30))
    bad = [tmp_path / "mine" / name for name in ("a/007.png", "a/029.png", "b/001.png", "b/002.png", "b/029.png")]
    for file in bad:
        file.write_bytes(b"bad")
    line = refusal(loaded, tmp_path)
    assert sum(str(file) in line for file in bad) == 3 and "and 2 more files" in line, line
    for file in bad:
        file.unlink()
    data = loaded(tmp_path)
    assert len(data.train) + len(data.test) == 55


def test_the_command_names_a_damaged_image_and_trains_nothing(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "mine", classes(20, 20) | {"a/a\n b\u202e.png": PNG[:50]})
    words = ["run", "--method", "random", "--ratio", 0.5, *TINY, "--dataset", "imagefolder", "--data", tmp_path]
    words += ["--set", "dataset.folder=mine", "--out", tmp_path / "runs"]
    answer = command(*words)
    assert answer.code == 2 and answer.out == "" and "Traceback" not in answer.err
    decoding, first, last = answer.err.splitlines()
    assert "41 images" in decoding and "looking for others" in first
    assert last.startswith("sadp-bench: ") and "a b\\u202e.png" in last and "mend or remove" in last
    assert not (tmp_path / "runs").exists()
    refused(command(*words, "--set", "dataset.folder=no"), "no is not there", "--set dataset.folder=PATH")


def test_names_of_any_kind_are_read(tmp_path: Path, cache: Path) -> None:
    names = [
        "with spaces .png",
        "ünï鶴.PNG",
        "-rf.png",
        "'\"$(x).png",
        "line\nbreak.png",
        "x" * 250 + ".png",
        "a.b.c.png",
    ]
    names += ["png named.jpg", "png named.JPEG", "png named.webp", ".hidden.png", "Thumbs.db", "notes.txt", "no ending"]
    files = {f"a class/{name}": encoded(picture(seed=number)) for number, name in enumerate(names)}
    files |= {"Ä/jpeg named.png": JPEG, "Ä/webp named.jpg": WEBP, "a/deep/er/still/1.png": PNG, ".hidden/x.png": b""}
    write(tmp_path / "mine", files | {"readme.md": b"", "A/1.png": PNG})
    folder = os.fsencode(tmp_path / "mine" / "a class")
    with open(folder + b"/not utf-8 \xff.png", "wb") as sink:
        sink.write(PNG)
    (tmp_path / "mine" / "linked").symlink_to(tmp_path / "mine" / "A")
    data = loaded(tmp_path)
    assert data.class_names == ("A", "a", "a class", "linked", "Ä")
    counts = torch.bincount(torch.cat([data.train.label_N, data.test.label_N])).tolist()
    assert counts == [1, 1, 11, 1, 2]


def test_classes_of_one_image_and_300_classes_are_read(tmp_path: Path, cache: Path) -> None:
    files = {f"class {number:03}/1.png": encoded(RGB[:4, :4]) for number in range(300)}
    write(tmp_path / "mine", files | {"class 000/2.png": PNG})
    data = loaded(tmp_path, side=4)
    assert len(data.class_names) == 300 and data.train.label_N.tolist() == list(range(300))
    assert data.test.label_N.tolist() == [0]  # a class of one image trains


def circle(folder: Path) -> None:
    (folder / "a" / "again").symlink_to(folder / "a")


def to_itself(folder: Path) -> None:
    (folder / "a" / "self.png").symlink_to(folder / "a" / "self.png")


def dangling(folder: Path) -> None:
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a" / "pipe.png")


def emptied(folder: Path) -> None:
    for file in (folder / "a").iterdir():
        file.unlink()


def file_in_its_place(folder: Path) -> None:
    folder.rename(folder.with_name("other"))
    folder.write_bytes(PNG)


def adding(**files: bytes) -> Callable[[Path], Any]:
    return lambda folder: write(folder, {name.replace("__", "/").replace("_", "."): f for name, f in files.items()})


def renamed(old: str, new: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / old).rename(folder / new)


# A change to a folder of the classes a and b, and words of the line about it, by name.
FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda folder: folder.rename(folder.with_name("other")), "mine is not there, or is no folder"),
    "a file": (file_in_its_place, "mine is not there, or is no folder"),
    "a GIF among them": (adding(a__x_gif=b""), "'x.gif' is an image in .gif, and only .jpg"),
    "a TIFF among them": (adding(b__x_TIF=b""), "'x.TIF' is an image in .tif"),
    "an image beside the classes": (adding(x_png=PNG), "x.png lies beside the class folders"),
    "an empty class": (emptied, "mine/a has no images (.jpg"),
    "a folder that is no class": (adding(MACOSX__x=b""), "has no images"),
    "a circle": (circle, "more than 8 folders deep, or a link leads in a circle"),
    "a link to itself": (to_itself, "self.png"),
    "a dangling link": (dangling, "gone.png: No such file"),
    "a pipe": (pipe, "pipe.png is no regular file"),
    "train alone": (adding(train__a__x_png=PNG), "has the folder train, and no class folders in val and test"),
    "an unknown class in val": (
        adding(train__a__x_png=PNG, train__b__x_png=PNG, val__c__x_png=PNG),
        "has a class that train lacks: 'c'",
    ),
    "images without class in val": (
        adding(train__a__x_png=PNG, val__images__x_png=PNG),
        "has a class that train lacks: 'images'",
    ),
    "images beside the classes of val": (
        adding(train__a__x_png=PNG, val__a__x_png=PNG, val__y_png=PNG),
        "y.png lies beside the class folders",
    ),
    "one class": (lambda folder: emptied(folder) or (folder / "a").rmdir(), "two classes at least"),
    "no test image": (
        lambda folder: [(folder / name / "000.png").unlink() for name in "ab"],
        "2 training and 0 test images",
    ),
    "a class name of two lines": (renamed("a", "a\nb"), "control characters (U+000A) in 'a\\nb'"),
    "a class name of no text": (renamed("a", "\udcff"), "'\\udcff'"),
    "a blank class name": (renamed("a", " "), "no name for label 0"),
}


def test_each_odd_folder_is_refused_in_one_line(tmp_path: Path, cache: Path) -> None:
    for number, (name, (spoil, words)) in enumerate(FOLDERS.items()):
        root = tmp_path / str(number)
        spoil(write(root / "mine", classes(2, 2)))
        with pytest.raises(ValueError) as caught:
            loaded(root)
        assert words in str(caught.value), f"{name}: {caught.value}"
    assert len(READ) + len(REFUSED) + len(FOLDERS) > 60


def test_a_file_that_unpacks_to_more_than_the_limit_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for decoder in ("_png_pixels", "_other_pixels"):
        monkeypatch.setattr(decoding, decoder, lambda content: pytest.fail("is decoded"))
    monkeypatch.setattr(decoding, "MOST_PIXELS", SIDE * SIDE - 1)
    for content in (JPEG, PNG):
        with pytest.raises(ValueError, match="16 x 16 pixels are more than 255"):
            decode(content, 8)
