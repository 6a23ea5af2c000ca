"""The base class of data sets, and functions that find, download and read their files.

Every fault of a file or a folder raises a `BadInput` of one line that names it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from threading import Thread
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import opened
from sadp_bench.core.text import printable
from sadp_bench.datasets.examples import Examples

PATIENCE_SECONDS = 9  # seconds to wait for a response, and for each further piece of a download
WAY_OUT = "put it there, name its folder with --data, or take --dataset digits, which needs no download"


class Dataset(ABC):
    """Labelled training and test examples in memory, and the settings that suit a run on them.

    An input is (stored value / scale - mean) / std, channel by channel. `scale` is 255 for images of bytes. It is 1 for
    counts of events, which remain as they are with mean 0 and std 1. The docstring of a subclass starts with one line
    about its content and size, and has a paragraph `Source: ...`. `datasets.contract` checks the examples that it loads.

    Keyword-only arguments of a subclass's `__init__` are its settings, `--set dataset.KEY=VALUE`. Each has a number, a text
    or a truth value as its default. They are part of the spec. `__init__` sets those of `events`, `scale`, `mean`, `std`,
    `class_names` and `found` that depend on the files.

    Attributes:
        events: Whether inputs are frames of events [N, T, C, H, W] instead of static images [N, C, H, W].
        vectors: Whether the frames are vectors of F values, stored as images [1, 1, F]. Convolutional networks and
            augmentation refuse them.
        backbone: The default of `--backbone`.
        augment: The default of `--augment`.
        epochs: The default of `--epochs`.
        batch_size: The default of `--batch-size`.
        timesteps: The default of `--timesteps`.
        learning_rate: The default of `--learning-rate`.
        scale: Divisor of stored values.
        mean: Mean of each channel, after scaling.
        std: Standard deviation of each channel, after scaling.
        class_names: Names of the classes, by label.
        found: Settings that the files determine, such as a hash. They replace the defaults in the spec. A subclass raises
            BadInput where a given setting differs from its files.
        file_names: The file of each example in "train" and in "test", where it is known.
        train: The training examples.
        test: The test examples.
    """

    events: bool = False
    vectors: ClassVar[bool] = False
    backbone: ClassVar[str] = "cnn"
    augment: ClassVar[str] = "none"
    epochs: ClassVar[int] = 20
    batch_size: ClassVar[int] = 128
    timesteps: ClassVar[int] = 4
    learning_rate: ClassVar[float] = 0.1
    scale: float = 255.0
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    found: Mapping[str, Any] = MappingProxyType({})
    file_names: Mapping[str, Sequence[str]] = MappingProxyType({})

    train: Examples
    test: Examples

    @abstractmethod
    def __init__(self, root: Path, timesteps: int) -> None:
        """Loads `train` and `test`, and downloads absent files.

        Args:
            root: The folder of all data sets.
            timesteps: Frames into which a recording of events is cut; static images ignore it.

        Raises:
            BadInput: Files are absent and cannot be downloaded, or are broken.
        """

    @classmethod
    @abstractmethod
    def locate(cls, root: Path) -> Path | None:
        """Returns the place of the files in `root`; None where one is absent. Opens and downloads nothing.

        A subclass with settings takes all of them here too, as keyword arguments with the same defaults.
        """


def data_root(given: Path | None) -> Path:
    """Returns the folder of all data sets: the given one, or $SADP_BENCH_DATA, or else one in the user's cache.

    The folder need not exist yet. Raises BadInput where it is a file or may not be read.
    """
    try:
        root = Path(given or os.environ.get("SADP_BENCH_DATA") or cache_folder() / "data").expanduser()
    except RuntimeError as error:
        raise BadInput(f"the data folder is not to be found: {cause(error)}; give one with --data") from error
    if os.path.exists(root) and not os.path.isdir(root):
        raise BadInput(f"the data folder {root} is not a folder; give one with --data")
    if os.path.exists(root) and not os.access(root, os.R_OK | os.X_OK):
        raise BadInput(f"the data folder {root} may not be read by this user; give another one with --data")
    return root


def cache_folder() -> Path:
    """Returns this program's folder in the user's cache folder. Raises RuntimeError where the user has no home."""
    return (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sadp-bench").expanduser()


def first_missing(files: Iterable[Path]) -> Path | None:
    """Returns the first of the files that does not exist; None where all exist."""
    return next((file for file in files if not os.path.exists(file)), None)


def read_bytes(file: Path) -> NDArray[np.uint8]:
    """Returns the whole content of a file, writable."""
    with opened(file) as source:
        return np.fromfile(source, dtype=np.uint8)


def check_size(file: Path, num_bytes: int, num_wanted: int) -> None:
    """Raises BadInput for a content that is shorter or longer than its format requires."""
    if num_bytes != num_wanted:
        raise BadInput(f"{file} is broken: {num_bytes:,} bytes instead of {num_wanted:,}; delete it to get it anew")


def check_labels(file: Path, label_N: NDArray[Any], num_classes: int) -> None:
    """Raises BadInput for a label beyond the classes."""
    if label_N.max(initial=0) >= num_classes:
        wrong = int(label_N.max())
        raise BadInput(f"{file} is broken: label {wrong} is not 0 to {num_classes - 1}; delete it to get it anew")


def download(url: str, md5: str, wanted: Path) -> None:
    """Downloads `url` to `wanted` and checks the MD5 sum. After a failure it raises BadInput and leaves no file."""
    with _downloaded(url, md5, wanted, wanted.parent) as file:
        os.replace(file, wanted)


def download_archive(url: str, md5: str, wanted: Path, root: Path) -> None:
    """Downloads a tar archive and puts its files below `root`; `wanted` is the absent file, for messages."""
    if not hasattr(tarfile, "data_filter"):
        raise BadInput(f"unpacking {url} safely needs Python 3.11.4 or later; unpack it into {root} yourself")
    with _downloaded(url, md5, wanted, root) as archive:
        unpacked = archive.parent / "unpacked"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        for file in sorted(path for path in unpacked.rglob("*") if path.is_file()):
            target = root / file.relative_to(unpacked)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


@contextmanager
def _downloaded(url: str, md5: str, wanted: Path, folder: Path) -> Iterator[Path]:
    """Yields the checked download. It lies in a temporary folder within `folder`, so that a move is a rename."""
    print(printable(f"downloading {url} into {folder}"), file=sys.stderr, flush=True)
    try:
        with _opened(url) as response:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder, prefix=".download-") as beside:
                file = Path(beside) / "content"
                with file.open("wb") as sink:
                    shutil.copyfileobj(response, sink)
                _check_md5(file, md5)
                yield file
    except (OSError, HTTPException, tarfile.TarError) as error:
        raise BadInput(f"{wanted} is not there, and {url} cannot be had ({cause(error)}); {WAY_OUT}") from error


def _opened(url: str) -> Any:
    """Returns the response to `url`, over https alone. Raises OSError where no response comes in time."""
    # It runs in a thread, because a name lookup has no timeout, and each of several addresses would get a whole one.
    answers: Queue[Any] = Queue()

    def look_up() -> None:
        try:
            answers.put(urlopen(url, timeout=PATIENCE_SECONDS))
        except Exception as error:
            answers.put(error)

    if not url.startswith("https://"):
        raise OSError("not https")
    Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE_SECONDS)
    except Empty:
        raise TimeoutError(f"no answer in {PATIENCE_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise answer
    if not answer.geturl().startswith("https://"):
        answer.close()
        raise OSError("redirected away from https")
    return answer


def _check_md5(file: Path, md5: str) -> None:
    with file.open("rb") as source:
        found = hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise OSError(f"its MD5 sum is {found} instead of {md5}: cut short or changed")


def cause(error: BaseException) -> str:
    """Returns an error's reason in one line."""
    reason = error.reason if isinstance(error, URLError) else error
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return " ".join(text.split()) or type(reason).__name__
