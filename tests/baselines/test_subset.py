"""`subset`: examples or scores of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.subset import Subset
from sadp_bench.core.errors import BadInput
from sadp_bench.drop_in.sampler import PrunedSampler
from sadp_bench.records.naming import method_labels
from sadp_bench.records.spec import Spec
from sadp_bench.records.store import Store
from sadp_bench.runs.resolve import resolve
from sadp_bench.runs.run import run
from tests.commands import command
from tests.helpers import PlainContext, prepared
from tests.small_runs import SMALL
from tests.stopping import StopsAt

N = 37
SCORES = np.random.default_rng(0).permutation(N).astype(float)


def file_of(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "s.npz", **arrays)
    return str(folder / "s.npz")


def test_indices_are_kept_in_every_epoch_with_their_weights(tmp_path: Path) -> None:
    index = np.array([30, 2, 5, 36, 0, 11, 12, 13, 1, 9, 20, 21, 22, 24, 25, 33, 34, 35, 7], dtype=np.int32)
    weights = np.linspace(0.5, 2, 19)
    pruner = prepared(Subset(1 - 19 / N, file=file_of(tmp_path, index=index, weights=weights)), N)
    for epoch in range(3):
        selection = pruner.select(epoch)
        assert selection.index_K.tolist() == index.tolist()
        np.testing.assert_allclose(selection.weight_K, weights, rtol=1e-6)
    (tmp_path / "s.txt").write_text("# best\n" + "\n".join(map(str, index)) + "\n\n")
    selection = prepared(Subset(0.49, file=str(tmp_path / "s.txt")), N).select(0)
    assert selection.index_K.tolist() == index.tolist() and selection.weight_K.tolist() == [1.0] * 19


def test_of_scores_the_highest_the_lowest_or_the_middle_are_kept(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("\n".join(map(str, SCORES)))
    weights = 1 + SCORES
    file = file_of(tmp_path, scores=SCORES, weights=weights)
    by_score = np.argsort(-SCORES)
    for path in (file, str(tmp_path / "s.txt")):
        for keep in ("hardest", "easiest", "middle"):
            pruner, total = prepared(Subset(0.3, file=path, keep=keep), N), 0
            for epoch in range(5):
                selection = pruner.select(epoch)
                num_kept = len(selection.index_K)
                total += num_kept
                first = {"hardest": 0, "easiest": N - num_kept, "middle": (N - num_kept) // 2}[keep]
                expected = by_score[first : first + num_kept]
                assert selection.index_K.tolist() == expected.tolist(), keep
                if path == file:
                    np.testing.assert_allclose(selection.weight_K, weights[expected])
            assert abs(total - 0.7 * N * 5) <= 0.5


def test_a_mask_is_the_indices_of_its_kept_examples(tmp_path: Path) -> None:
    mask, weights = SCORES % 2 == 1, 1 + SCORES
    assert mask.sum() == 18
    np.save(tmp_path / "m.npy", mask)
    for path in (file_of(tmp_path, mask=mask, weights=weights), str(tmp_path / "m.npy")):
        selection = prepared(Subset(1 - 18 / N, file=path), N).select(0)
        assert selection.index_K.tolist() == [at for at in range(N) if mask[at]]
        np.testing.assert_allclose(selection.weight_K, weights[mask] if path.endswith("z") else np.ones(18))
    all_of = prepared(Subset(0.0, file=file_of(tmp_path, mask=np.ones(N, bool))), N).select(0)
    assert all_of.index_K.tolist() == list(range(N))


def test_infinite_scores_come_first_and_a_single_array_is_a_file(tmp_path: Path) -> None:
    scores = np.where(SCORES < 3, np.inf, SCORES)
    selection = prepared(Subset(0.5, file=file_of(tmp_path, scores=scores)), N).select(0)
    assert {at for at in range(N) if SCORES[at] < 3} == set(selection.index_K[:3].tolist())
    np.save(tmp_path / "s.npy", SCORES)
    by_score = prepared(Subset(0.5, file=str(tmp_path / "s.npy")), N).select(0)
    assert by_score.index_K.tolist() == np.argsort(-SCORES)[: len(by_score.index_K)].tolist()


def test_numbers_of_every_type_and_byte_order_are_read(tmp_path: Path) -> None:
    for kind in (">f4", "<f2", "longdouble", ">i8", ">u2", "<u4", ">f8"):
        weights = np.arange(1, 38).astype(kind)
        by_score = prepared(Subset(0.5, file=file_of(tmp_path, scores=SCORES.astype(kind), weights=weights)), N).select(
            0
        )
        assert by_score.index_K.tolist() == np.argsort(-SCORES)[: len(by_score.index_K)].tolist(), kind
        assert by_score.weight_K.tolist() == (by_score.index_K + 1).tolist(), kind
        if kind != "longdouble":
            index = np.arange(19)[::-1].astype(kind)
            by_index = prepared(Subset(0.49, file=file_of(tmp_path, index=index)), N).select(0)
            assert by_index.index_K.tolist() == index.tolist(), kind


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    index = np.arange(19)
    texts = {"words": "no\nnumbers", "two": "1 2\n3 4", "empty": " \n", "infinite": "1\ninf", "float": "0.5\n1\n2"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    np.savez(tmp_path / "object.npz", index=np.array([{}]))
    whole = Path(file_of(tmp_path, index=index)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    (tmp_path / "flipped.npz").write_bytes(whole[:100] + bytes(value ^ 255 for value in whole[100:140]) + whole[140:])
    arrays: dict[str, dict[str, Any]] = {
        "both": {"index": index, "scores": SCORES},
        "none": {"others": index},
        "twice": {"index": np.array([0, *range(18)])},
        "outside": {"index": index + 20},
        "negative": {"index": index - 1},
        "table": {"index": index.reshape(1, -1)},
        "truths": {"index": np.ones(N, dtype=bool)},
        "masks": {"mask": np.ones(N - 1, dtype=bool)},
        "nothing": {"mask": np.zeros(N, dtype=bool)},
        "counts": {"mask": np.ones(N)},
        "other": {"scores": SCORES, "data_sha256": np.asarray("ab")},
        "hash": {"scores": SCORES, "data_sha256": np.array([1.0])},
        "few": {"index": index[:10]},
        "scores": {"scores": SCORES[:-1]},
        "nan": {"scores": np.where(SCORES == 3, np.nan, SCORES)},
        "weights": {"index": index, "weights": np.ones(18)},
        "zero": {"index": index, "weights": np.append(np.ones(18), 0)},
        "tiny": {"index": index, "weights": np.append(np.ones(18), 1e-300)},
        "long": {"scores": np.where(SCORES == 3, np.longdouble("1e4000"), SCORES.astype(np.longdouble))},
        "huge": {"index": index, "weights": np.append(np.ones(18), 1e300)},
    }
    for name, of_file in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **of_file)
    faults = {
        "absent": "can't read .*: No such file",
        ".": "can't read",
        "words": "no text of a number a line",
        "two": r"has lines as float64 \[2, 2\]",
        "empty": "has the array index, mask or scores, one of the three",
        "infinite": "has lines that are not finite",
        "float": r"has 3 indices, among them 0\.5; they are distinct whole numbers from 0 to 36",
        "object.npz": "no .npz or .npy file of numbers",
        "cut.npz": "no .npz or .npy file of numbers",
        "flipped.npz": "no .npz or .npy file of numbers",
        "both.npz": "one of the three",
        "none.npz": "one of the three",
        "twice.npz": "has an index twice",
        "outside.npz": "has 19 indices, among them 37;",
        "negative.npz": "among them -1;",
        "table.npz": r"has index as int64 \[1, 19\]",
        "truths.npz": r"has index as bool \[37\]",
        "masks.npz": "has a mask of 36 examples, and the run 37 training examples",
        "nothing.npz": "has a mask that keeps no example",
        "counts.npz": r"has mask as float64 \[37\]; it is a list of truth values",
        "other.npz": "is of other data: its data_sha256 is 'ab', and the run's 'cdef'",
        "hash.npz": r"has data_sha256 as float64 \[1\]; it is a text",
        "few.npz": r"has 10 of 37 indices, which is --ratio 0\.7297, not 0\.49",
        "scores.npz": "has 36 scores, and the run 37 training examples",
        "nan.npz": "has scores that are not finite",
        "weights.npz": "has 18 weights for 19 index",
        "zero.npz": "has weights that are no numbers above 0 of float32",
        "tiny.npz": "has weights that are no numbers above 0 of float32",
        "long.npz": "has scores that are not finite",
        "huge.npz": "has weights that are no numbers above 0 of float32",
    }
    for name, fault in faults.items():
        with pytest.raises(BadInput, match=fault) as caught:
            Subset(0.49, file=str(tmp_path / name)).prepare(PlainContext(N, data_sha256="cdef"))
        assert "\n" not in str(caught.value), name
    options: list[tuple[dict[str, str], str]] = [
        ({"keep": "best"}, "subset's keep is one of hardest, easiest, middle, not 'best'"),
        ({}, "subset needs a file of indices or scores"),
        ({"file": file_of(tmp_path, index=index), "keep": "easiest"}, "has indices, and keep=easiest chooses among"),
        (
            {"file": file_of(tmp_path, index=index), "sha256": "ab"},
            "is another file: its SHA-256 is .*, and the run's is ab",
        ),
    ]
    for given, fault in options:
        with pytest.raises(BadInput, match=fault):
            prepared(Subset(0.49, **given), N)


def requested(file: str, **more: Any) -> dict[str, Any]:
    return {**SMALL, "method": "subset", "ratio": 0.5, "set": {"file": file, "backbone.width": 4}} | more


def test_the_content_makes_the_run_and_the_path_does_not(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = file_of(tmp_path / folder, index=np.arange(65))
    first, material = resolve(requested(str(tmp_path / "a" / "s.npz")))
    second, _ = resolve(requested(path))
    assert first.method_options["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert first.key == second.key and first.method_options["file"] != second.method_options["file"]
    assert Spec.from_json(first.to_json()) == first
    np.savez(path, index=np.arange(65)[::-1])
    third, _ = resolve(requested(path))
    assert third.key != first.key
    labels = method_labels([first, third])
    assert [labels[spec.key] for spec in (first, third)] == [
        f"subset (file={tmp_path / folder / 's.npz'})" for folder in ("a", "b")
    ]
    assert method_labels([second, third])[third.key] == f"subset (sha256={third.method_options['sha256']})"
    assert f"file={path}" in second.words() and f"sha256={second.method_options['sha256']}" in second.words()
    with pytest.raises(BadInput, match="is another file"):
        resolve(requested(path, set=second.method_options))
    assert run(first, material, Store(tmp_path / "records"), StopsAt(), reference=False)
    record = Store(tmp_path / "records").find(second)
    assert record is not None and record.spec == first and record.examples_seen == 2 * 65


def test_a_file_that_does_not_fit_is_refused_before_the_reference_trains(tmp_path: Path) -> None:
    spec, material = resolve(requested(file_of(tmp_path, index=np.arange(66, 132))))
    with pytest.raises(BadInput, match=r"among them 130; they are distinct whole numbers from 0 to 129"):
        run(spec, material, Store(tmp_path), progress := StopsAt())
    assert progress.count == 0
    args = ("--method", "subset", "--ratio", "0.5", "--train-examples", "130", "--set", "file=absent", "--out")
    answer = command("run", *args, str(tmp_path))
    assert answer.code == 2 and answer.err.count("\n") == 1 and "can't read absent" in answer.err


def test_the_sampler_takes_a_file(tmp_path: Path) -> None:
    file = file_of(tmp_path, scores=SCORES)
    sampler = PrunedSampler(Subset(0.5, file=file), num_examples=N, epochs=2, batch_size=5)
    sampler.set_epoch(0)
    chosen = torch.cat([torch.as_tensor(batch) for batch in sampler])
    assert set(chosen.tolist()) == set(np.argsort(-SCORES)[: len(chosen)].tolist())
