"""What a run exports gives, through `subset` and `fixed`, the run that it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.pruners.sadp import SADP
from sadp_bench.records.record import Record
from sadp_bench.records.store import Store, read
from sadp_bench.runs import exporting
from sadp_bench.runs.run import run
from sadp_bench.sparsity.fixed import Fixed
from tests.commands import command, refused, tiny_run
from tests.disks import fill, small_disk
from tests.helpers import prepared
from tests.small_runs import assert_same_weights, resolved


def trained(folder: Path, **requested: Any) -> tuple[Path, Record]:
    """Returns the path and the record of a run that keeps all it can."""
    spec, material = resolved(**requested)
    outcome = run(spec, material, Store(folder), Progress(), reference=False, save_model=True)
    assert outcome is not None
    return outcome.path, outcome.comparison.record


def same_run(one: tuple[Path, Record], other: tuple[Path, Record]) -> None:
    """Asserts that two runs are alike bit for bit: visits, accuracies, losses and the trained weights."""
    assert one[1].spec.key != other[1].spec.key
    for name in ("visits", "test_accuracy", "class_accuracy", "fitted_loss", "firing_rate", "density"):
        assert getattr(one[1], name) == getattr(other[1], name), name
    rows = [[(row["train_loss"], row["kept"]) for row in record.epochs] for _, record in (one, other)]
    assert rows[0] == rows[1]
    first, second = (torch.load(path.with_suffix(".pt"), weights_only=True) for path, _ in (one, other))
    assert_same_weights(first, second)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """EL2N on 130 digits, of which 65 are kept; some never-learned ones of `forgetting` would score infinity."""
    return trained(tmp_path_factory.mktemp("static"), method="el2n", ratio=0.5)


@pytest.mark.parametrize("part", ["scores", "masks"])
def test_exported_scores_and_masks_give_the_static_run(part: str, static: tuple[Path, Record], tmp_path: Path) -> None:
    file = tmp_path / "e.npz"
    exporting.export(*static, {part: file})
    same_run(static, trained(tmp_path, method="subset", ratio=0.5, set={"file": str(file)}))
    again = tmp_path / "again.npz"
    exporting.export(*static, {part: again})
    assert file.read_bytes() == again.read_bytes(), "the key of a run is made of the content"


def test_scores_of_another_network_choose_the_highest_or_the_lowest(
    static: tuple[Path, Record], tmp_path: Path
) -> None:
    file = tmp_path / "s.npz"
    exporting.export(*static, {"scores": file})
    order = np.argsort(exporting.scores(*static))
    for keep, kept in (("hardest", order[65:]), ("easiest", order[:65])):
        settings = {"file": str(file), "keep": keep, "backbone.width": 5}
        _, record = trained(tmp_path, method="subset", ratio=0.5, epochs=1, set=settings)
        assert sorted(np.flatnonzero(exporting.visits(record))) == sorted(kept), keep


def test_a_file_of_other_data_is_refused(static: tuple[Path, Record], tmp_path: Path) -> None:
    file = tmp_path / "s.npz"
    exporting.export(*static, {"scores": file})
    with pytest.raises(BadInput, match="is of other data: its data_sha256 is .* leave out the array data_sha256"):
        trained(tmp_path, method="subset", ratio=0.5, evaluate_on="validation", set={"file": str(file)})
    assert not list(tmp_path.glob("*.json"))


def test_sadp_keeps_the_scores_of_the_next_draw(tmp_path: Path) -> None:
    pruner = prepared(SADP(0.5), 4)
    assert pruner.final_scores().tolist() == [1, 1, 1, 1]
    pruner.score_sq_N = torch.tensor([4.0, torch.nan, 16.0, 9.0])
    np.testing.assert_allclose(pruner.final_scores(), [2, 3, 4, 3], rtol=1e-12)
    answer = tiny_run("sadp", 0.5, tmp_path, "--save-scores", "--no-reference")
    [path] = tmp_path.glob("*-sadp-*.json")
    file = path.with_suffix(".scores.npz")
    assert answer.code == 0 and f"scores     {file}" in answer.out
    score_N = np.load(file)["scores"]
    unseen = exporting.visits(read(path)) == 0
    np.testing.assert_allclose(score_N[unseen], score_N[~unseen].mean())
    assert len(np.unique(score_N[~unseen])) == 256 - unseen.sum() < 256
    assert (exporting.scores(path, read(path)) == score_N).all()
    answer = tiny_run("subset", 0.5, tmp_path, "--no-reference", "--set", f"file={file}")
    assert answer.code == 0, answer.err
    [subset] = tmp_path.glob("*-subset-*.json")
    kept = exporting.visits(read(subset)) == 2
    assert kept.sum() == 128 and score_N[kept].min() >= score_N[~kept].max()


@pytest.mark.parametrize("sparsity", ["random", "imp"])
def test_exported_masks_of_connections_give_the_sparse_run(sparsity: str, tmp_path: Path) -> None:
    one = trained(tmp_path, method="random", ratio=0.5, sparsity=sparsity, density=0.5)
    file = tmp_path / "m.npz"
    exporting.export(*one, {"masks": file})
    settings = {"sparsity.file": str(file)}
    other = trained(tmp_path, method="random", ratio=0.5, sparsity="fixed", density=0.5, set=settings)
    same_run(one, other)
    assert other[1].prepare_examples == 0
    names = set(np.load(file).files)
    assert {"mask", "data_sha256"} < names and any(name.startswith("start/") for name in names) == (sparsity == "imp")


def test_bad_masks_of_connections_are_refused_in_one_line(tmp_path: Path) -> None:
    masks = {name: np.arange(value.numel()).reshape(value.shape) % 2 == 0 for name, value in weights_of().items()}
    few = dict(list(masks.items())[1:])
    files: dict[str, tuple[dict[str, Any], str]] = {
        "none": ({"mask": np.ones(3, bool)}, "has no masks of connections: bool arrays connections/NAME"),
        "numbers": ({"connections/a": np.ones(3)}, "has 'connections/a' as float64, where masks are bool"),
        "dense": ({"connections/a": np.ones(3, bool)}, "has a share of 1 of the connections: give --density 1"),
        "few": (masks_of(few), "has masks of another network: .* has the shape none in the file"),
        "start": (
            masks_of(masks) | {"start/a": np.ones(2)},
            "has weights of another network: .*shape none in the file",
        ),
    }
    for name, (arrays, fault) in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(BadInput, match=fault) as caught:
            trained(tmp_path, sparsity="fixed", density=0.5, set={"sparsity.file": str(tmp_path / f"{name}.npz")})
        assert "\n" not in str(caught.value), name
    (tmp_path / "text").write_text("no")
    for file, fault in (("text", "is no .npz file of arrays"), ("absent", "can't read"), ("", "needs a file of masks")):
        with pytest.raises(BadInput, match=fault):
            Fixed(0.5, file=file and str(tmp_path / file)).check(2, 2)
    with pytest.raises(BadInput, match="is another file: its SHA-256 is"):
        Fixed(0.5, file=str(tmp_path / "few.npz"), sha256="ab").check(2, 2)
    assert not list(tmp_path.glob("*.json"))


def weights_of() -> dict[str, torch.Tensor]:
    from sadp_bench.runs.building import build_model
    from sadp_bench.sparsity.base import prunable

    return {name: weight.data for name, weight in prunable(build_model(*resolved(), 0)).items()}


def masks_of(masks: dict[str, Any]) -> dict[str, Any]:
    return {f"connections/{name}": mask for name, mask in masks.items()}


def test_the_command_writes_all_parts_or_none(static: tuple[Path, Record], tmp_path: Path) -> None:
    path, record = static
    words = ["--visits", tmp_path / "v.csv", "--weights", tmp_path / "w.pt", "--scores", tmp_path / "s.npz"]
    answer = command("export", path, *words)
    assert answer.code == 0, answer.err
    assert f"run --method subset --ratio 0.5 --set file={tmp_path / 's.npz'}" in answer.out
    table = np.loadtxt(tmp_path / "v.csv", delimiter=",", skiprows=1, dtype=int)
    assert table[:, 0].tolist() == list(range(130)) and table[:, 1].sum() == record.examples_seen
    content = torch.load(tmp_path / "w.pt", weights_only=True)
    assert_same_weights(content["state_dict"], torch.load(path.with_suffix(".pt"), weights_only=True))
    assert content["class_names"][3] == "3" and content["scale"] == 16
    refused(command("export", path, *words), "s.npz is there already; remove it")
    refused(command("export", path), "name at least one of --scores, --visits, --masks and --weights")
    refused(command("export", path, "--visits", tmp_path / "a", "--masks", tmp_path / "a"), "have the same file")
    refused(command("export", tmp_path / "v.csv", "--visits", tmp_path / "a"), "not JSON")


def test_a_part_that_does_not_fit_leaves_no_file_of_the_others(static: tuple[Path, Record], tmp_path: Path) -> None:
    with small_disk() as full:
        fill(full)
        for first, second in ((tmp_path, full), (full, tmp_path)):
            parts = ["--scores", first / "s.npz", "--visits", second / "v.csv"]
            refused(command("export", static[0], *parts), "can't write", "No space left")
            assert not list(tmp_path.iterdir()) and [file.name for file in full.iterdir()] == ["filler"]


def test_what_a_run_did_not_keep_is_one_line_that_names_the_option(tmp_path: Path) -> None:
    tiny_run("random", 0.5, tmp_path, "--no-reference", "--sparsity", "random", "--density", "0.5")
    [path] = tmp_path.glob("*.json")
    for part, option in (("scores", "--save-scores"), ("weights", "--save-model"), ("masks", "--save-model")):
        both = ["--visits", tmp_path / "v.csv", f"--{part}", tmp_path / "e"]
        refused(command("export", path, *both), option)
    assert list(tmp_path.iterdir()) == [path]
    refused(tiny_run("random", 0.3, tmp_path, "--save-scores"), "random has no scores for --save-scores to keep")
    assert list(tmp_path.iterdir()) == [path]
