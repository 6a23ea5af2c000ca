"""The bias of draws: against closed forms on a linear network, against all subsets with batch norm, and in a study."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from baselines.divbs import DivBS
from baselines.random_subset import Random
from sadp_bench.backbones.plain import CNN
from sadp_bench.backbones.weighted_norm import weighted_batch_norm, weighted_statistics
from sadp_bench.capture.layers import reset_state
from sadp_bench.cli.bias_view import share
from sadp_bench.core.errors import BadInput
from sadp_bench.core.progress import Progress
from sadp_bench.core.rng import stream
from sadp_bench.measure import gradient_bias as bias_module
from sadp_bench.measure import score_cost, study_file
from sadp_bench.measure.bias_numbers import square_of_bias
from sadp_bench.measure.draws import Drawn, by_pruner, by_score
from sadp_bench.measure.gradient_bias import Passes, gradient_bias
from sadp_bench.measure.study import Study
from sadp_bench.pruners.sadp import SADP
from sadp_bench.pruners.sampling import inclusion_probability, smooth
from tests.commands import command, refused
from tests.measure.test_study_command import shown
from tests.small_runs import SMALL, make_trainer, resolved, small_bench, weights_of


def in_errors(part: dict[str, Any], square: float) -> float:
    distance: float = abs(part["square"] - square) / part["square_error"]
    return distance


# Numbers


def test_squares_of_noisy_rounds_are_without_bias_and_their_errors_are_those_of_repetition() -> None:
    """The jackknife's error is too large by the factor of its docstring if there is noise alone."""
    generator = torch.Generator().manual_seed(1)
    full_RP = torch.zeros(8, 30).double()
    full_RP[:, 0] = 2
    for length, calibration in ((20.0, 1.0), (1.0, None), (0.0, (14 / 6) ** 0.5)):
        cells = []
        for _ in range(120):
            error_RP = torch.randn(8, 30, generator=generator).double() * 5 / 30**0.5
            error_RP[:, 1] += length
            cells.append(square_of_bias(error_RP @ error_RP.T, full_RP @ full_RP.T))
        square, error = (torch.tensor([cell[name] for cell in cells]) for name in ("square", "square_error"))
        assert float(square.mean()) == pytest.approx(length**2 / 4, abs=3 * float(square.std()) / 120**0.5)
        of_repetition = float(error.square().mean().sqrt() / square.std())
        assert calibration is None or of_repetition == pytest.approx(calibration, rel=0.25), length


def test_a_bias_is_shown_where_it_is_seen() -> None:
    assert share({"square": 0.01, "square_error": 0.001}, " %") == "10.0 ± 0.5 %"
    assert share({"square": 0.0001, "square_error": 0.0001}) == "< 1.7"
    assert share({"square": -0.0005, "square_error": 0.0002}) == "< 2.0"
    assert (
        share({"square": 2.25, "square_error": 0.03}) == "150 ± 1.0"
        and share({"square": None, "square_error": None}) == "–"
    )


# A linear network


def brightness(image_n: Tensor) -> Tensor:
    return image_n.square().flatten(1).sum(1).double() ** 2


class Linear(nn.Module):
    """Logits of one step by a linear layer, so that an example's gradient is (p - y) [x, 1]^T."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = nn.Linear(64, 10)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.readout(input.flatten(1)).unsqueeze(0)
        return logits


def test_exact_weights_have_no_bias_and_the_bias_without_weights_is_the_closed_forms() -> None:
    bench = small_bench()
    torch.manual_seed(0)
    model, index_n, kept = Linear(), torch.arange(20, 120), 50
    image_n, label_n = bench.data.input(index_n), bench.data.label_N[index_n]
    p_n = inclusion_probability(smooth(brightness(image_n), 0.2), kept)
    exact = by_score(brightness(image_n), 0.5, 0.2, seed=0)
    assert exact is not None

    def unweighted(number: int) -> Drawn:
        place_k, _ = exact(number)
        return place_k, torch.full((kept,), 100 / kept).double()

    passes = Passes(model, bench.data, bench.spec, index_n, Progress())
    found = gradient_bias(passes, {"exact": exact, "unweighted": unweighted}, rounds=8)
    assert [(row["draw"], row["norm"]) for row in found["rows"]] == [("exact", ""), ("unweighted", "")]

    x_nD = torch.cat([image_n.flatten(1), torch.ones(100, 1)], 1).double()
    with torch.no_grad():
        error_nC = (model(image_n)[0].softmax(1) - torch.eye(10)[label_n]).double()
    gradient_nP = (error_nC[:, :, None] * x_nD[:, None]).flatten(1)
    full_P = gradient_nP.mean(0)
    drawn_P = (p_n[:, None] * gradient_nP).sum(0) / kept
    square = float((drawn_P - full_P).square().sum() / full_P.square().sum())
    cosine = float(drawn_P @ full_P / drawn_P.norm() / full_P.norm())

    weighted, plain = (row["gradient"]["whole"] for row in found["rows"])
    assert found["rows"][0]["gradient"]["parts"] == {"readout": weighted}
    assert in_errors(weighted, 0.0) < 3 and weighted["cosine"] > 0.99
    assert in_errors(plain, square) < 3 and plain["square_error"] < 0.2 * square and square > 0.01
    assert plain["cosine"] == pytest.approx(cosine, abs=0.003) and cosine < 0.996
    # The length that finite draws add, for as many draws as a round has. The numbers above are free from it.
    means = [gradient_of(exact, number, gradient_nP) for number in range(50)]
    naive = float((torch.stack(means).mean(0) - full_P).square().sum() / full_P.square().sum())
    assert naive > 3 * (weighted["square"] + weighted["square_error"])


def gradient_of(draw: Callable[[int], Drawn], number: int, gradient_nP: Tensor) -> Tensor:
    place_k, weight_k = draw(number)
    return weight_k @ gradient_nP[place_k] / len(gradient_nP)


# Batch norm


def training_gradient(model: nn.Module, input: Tensor, label_B: Tensor, weight_B: Tensor, weighted: bool) -> Tensor:
    model.zero_grad()
    with weighted_statistics(model, weight_B if weighted else torch.ones(len(weight_B))):
        logits_TBC = model(input)
    (weight_B * cross_entropy(logits_TBC.mean(0), label_B, reduction="none")).sum().backward()
    reset_state(model)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


def test_with_batch_norm_the_bias_is_that_of_all_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of 4 out of 8 examples: three subsets, with any weights. Full data: all 70 subsets of a batch's size."""
    monkeypatch.setattr(bias_module, "COUNTED", 10)
    bench = small_bench(batch_size=4)
    index_n = torch.arange(8)
    input, label_n = bench.data.input(index_n), bench.data.label_N[index_n]
    chosen = torch.tensor([[0, 1, 2, 3], [2, 3, 4, 5], [1, 4, 6, 7]])
    weight = torch.tensor([[1.0, 2, 3, 1], [2, 2, 1, 4], [3, 1, 1, 2]]).double()

    def draw(number: int) -> Drawn:
        at = int(torch.randint(3, (1,), generator=stream(0, "test", number)))
        return chosen[at], weight[at]

    model = weighted_batch_norm(copy.deepcopy(bench.model)).train()
    ones = torch.ones(4)
    subsets = [torch.tensor(subset) for subset in itertools.combinations(range(8), 4)]
    full_P = torch.stack([training_gradient(model, input[s], label_n[s], ones, False) for s in subsets]).mean(0) / 4
    passes = Passes(bench.model, bench.data, bench.spec, index_n, Progress())
    found = gradient_bias(passes, {"made": draw}, rounds=16)
    assert [row["norm"] for row in found["rows"]] == ["batch", "weighted"]
    for row in found["rows"]:
        drawn = [
            training_gradient(model, input[s], label_n[s], w.float(), row["norm"] == "weighted")
            for s, w in zip(chosen, weight, strict=True)
        ]
        drawn_P = torch.stack(drawn).mean(0) / 8
        square = float((drawn_P - full_P).square().sum() / full_P.square().sum())
        whole = row["gradient"]["whole"]
        assert in_errors(whole, square) < 3 and whole["square_error"] < 0.4 * square, (row["norm"], square, whole)
        assert whole["cosine"] == pytest.approx(float(drawn_P @ full_P / drawn_P.norm() / full_P.norm()), abs=0.08)


def test_statistics_of_uneven_draws_are_off_as_in_closed_form_and_those_of_the_weighted_norm_are_not() -> None:
    """The digits 0 to 2 are drawn five times as often as the others."""
    bench = small_bench(train_examples=300)
    index_n = torch.arange(200)
    image_n, score_n = bench.data.input(index_n), torch.where(bench.data.label_N[:200] < 3, 1.0, 0.2)
    p_n = inclusion_probability(score_n, 60)
    uneven, uniform = (by_score(of_n, 0.3, 1e-9, seed=0) for of_n in (score_n, torch.ones(200)))
    assert uneven is not None and uniform is not None
    before = weights_of(bench.model)
    passes = Passes(bench.model, bench.data, bench.spec, index_n, Progress())
    found = gradient_bias(passes, {"uniform": uniform, "uneven": uneven}, rounds=8)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(bench.model).items())
    rows = {(row["draw"], row["norm"]): row for row in found["rows"]}
    assert list(rows) == [("uniform", "batch"), ("uneven", "batch"), ("uneven", "weighted")]

    stem: Any = bench.model.stem
    x = stem[0](image_n).detach().double()
    mean_nC, deviation_C = x.mean((2, 3)), (x.var((0, 2, 3)) + stem[1].eps).sqrt()
    off_C = ((p_n / 60) @ mean_nC - mean_nC.mean(0)) / deviation_C
    of_stem = rows["uneven", "batch"]["mean"]["parts"]["stem.1"]
    off = float(off_C.square().mean())
    assert in_errors(of_stem, off) < 3 and of_stem["square_error"] < 0.4 * off, (of_stem, off)
    for name in ("mean", "variance"):
        batch, weighted, none = (rows[key][name]["whole"] for key in (*list(rows)[1:], ("uniform", "batch")))
        assert batch["square"] > 4 * batch["square_error"], (name, batch)
        for of_no_bias in (weighted, none):
            assert abs(of_no_bias["square"]) < min(3 * of_no_bias["square_error"], 0.2 * batch["square"]), (
                name,
                of_no_bias,
            )
    assert set(rows["uneven", "batch"]["gradient"]["parts"]) == {
        *("stem.0", "stem.1", "body.1", "body.2", "body.4", "body.5", "readout")
    }


# Draws of pruners


def test_draws_of_a_pruner_are_those_of_its_class_among_the_studied_and_leave_it_as_it_is() -> None:
    bench = small_bench(SADP(0.5))
    method: Any = bench.pruner
    method.score_sq_N = torch.rand(130, generator=stream(0, "scores")) ** 2
    index_n = torch.randperm(130, generator=stream(0, "studied"))[:40]
    state = method.state_dict()
    draw = by_pruner(method, index_n, 1)
    assert draw is not None
    p_N = inclusion_probability(smooth(method.score_sq_N.double().sqrt(), 0.2), 65)
    total_n, number = torch.zeros(40).double(), 200
    for at in range(number):
        place_k, weight_k = draw(at)
        assert weight_k.numpy() == pytest.approx((1 / p_N[index_n[place_k]]).numpy(), rel=1e-5)
        total_n[place_k] += weight_k
    deviation_n = ((1 / p_N[index_n] - 1) / number).sqrt()
    assert float(((total_n / number - 1).abs() / deviation_n.clamp_min(1e-6)).max()) < 4.5
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(
        (v for v in state.values() if not isinstance(v, str)),
        (v for v in method.state_dict().values() if not isinstance(v, str)), strict=True))  # fmt: skip


def test_a_fixed_subset_is_drawn_each_time_and_a_choice_within_the_batch_has_no_draw() -> None:
    fixed = small_bench(Random(0.5, fresh=False)).pruner
    index_n = torch.arange(30, 70)
    draw = by_pruner(fixed, index_n, 1)
    assert draw is not None
    (places, weights), (again, _) = draw(0), draw(1)
    kept = set(fixed.select(1).index_K.tolist())
    assert [i - 30 for i in sorted(kept) if 30 <= i < 70] == sorted(places.tolist()) == sorted(again.tolist())
    assert weights.tolist() == [2.0] * len(places)
    assert by_pruner(small_bench(DivBS(0.5)).pruner, index_n, 1) is None


# In a study


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    request = {**SMALL, "epochs": 1, "method": "sadp", "ratio": 0.5, "set": {"backbone.width": 4}}
    with pytest.MonkeyPatch.context() as patch:
        costs = {"median": 0.0, "spread": 0.0}
        cost = {"scores": {}, "noise": costs, "calibration": {"first_batch": costs, "share_of_epoch": 0.0}}
        patch.setattr(score_cost, "measure_cost", lambda *_: cost | {"step_seconds": 0.0, "rounds": 0, "batches": 0})
        patch.setattr(bias_module, "COUNTED", 5)
        patch.setattr(bias_module, "ROUNDS", 3)
        found = Study(request, "1", 60, None, Progress(), bias=True).measure()
    return found, study_file.write(tmp_path_factory.mktemp("studies"), found)


def test_a_study_with_bias_is_of_the_run_that_nobody_studies_and_its_file_comes_back(
    studied: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    found, path = studied
    plain = make_trainer(*resolved(method="sadp", ratio=0.5, epochs=1))
    plain.prepare()
    assert [row["train_loss"] for row in found["rows"]] == [row["train_loss"] for row in plain.rows()]
    assert study_file.read_study(path) == json.loads(json.dumps(found))
    asked = study_file.study_key(plain.spec, [1], 60), study_file.study_key(plain.spec, [1], 60, True)
    assert found["key"] == asked[1] != asked[0]
    for stop in found["stops"]:
        rows = [(row["draw"], row["norm"]) for row in stop["bias"]["rows"]]
        norms = ("batch", "weighted")
        assert rows == [("uniform", "batch"), *(("sadp", n) for n in norms), *(("exact", n) for n in norms)]
    damaged = json.loads(path.read_text())
    damaged["stops"][0]["bias"]["rows"][0]["gradient"].pop("whole")
    (tmp_path / "bad.study.json").write_text(json.dumps(damaged))
    with pytest.raises(BadInput, match="gradient lacks whole"):
        study_file.read_study(tmp_path / "bad.study.json")


def test_the_table_states_the_bias_and_the_study_begins_with_a_sentence(studied: tuple[dict[str, Any], Path]) -> None:
    found, path = studied
    for width in (80, 104):
        assert max(map(len, shown(found, width).splitlines())) <= width
    text = shown(found, 104)
    last = {(row["draw"], row["norm"]): row["gradient"] for row in found["stops"][-1]["bias"]["rows"]}
    line = [line for line in text.splitlines() if line.startswith("all layers")][-1]
    assert line.rstrip().endswith(share(last["exact", "weighted"]["whole"]))
    line = [line for line in text.splitlines() if line.startswith("body.4 ")][-1]
    assert all(share(last[key]["parts"]["body.4"]) in line for key in last)
    sentence = " ".join(text[: text.index("after epoch 1 of")].split())
    of_sadp = " and ".join(
        f"{share(last['sadp', norm]['whole'], ' %')} with norm={norm}" for norm in ("batch", "weighted")
    )
    assert sentence.endswith(
        f"After epoch 1, with 50 % kept, the expected gradient of a batch by SADP is off full data's by {of_sadp} of its "
        f"length. For uniform sampling it is {share(last['uniform', 'batch']['whole'], ' %')}."
    )
    assert command("study", "--from", path).code == 0
    refused(command("study", "--from", path, "--bias"), "leave the options of training out")


class OddNorm(nn.BatchNorm2d):
    """A batch norm of one's own."""


class OddCNN(CNN):
    """Has one."""

    def __init__(self, *given: Any, width: int = 4) -> None:
        super().__init__(*given, width=width)
        self.stem[1] = OddNorm(width)


def test_a_norm_that_can_not_be_weighted_is_refused_before_training() -> None:
    request = {**SMALL, "backbone": f"{__name__}:OddCNN"}
    with pytest.raises(BadInput, match="OddNorm, and weighted statistics exist"):
        Study(request, "1", 60, None, Progress(), bias=True)
    assert Study(request, "1", 60, None, Progress()).at == [1]


def test_on_full_data_sadp_draws_half_and_without_batch_norm_there_is_one_row_a_draw(
    monkeypatch: pytest.MonkeyPatch, studied: tuple[dict[str, Any], Path]
) -> None:
    monkeypatch.setattr(score_cost, "measure_cost", lambda *_: studied[0]["cost"])
    monkeypatch.setattr(bias_module, "COUNTED", 20)
    request = {**SMALL, "backbone": "mlp", "epochs": 1, "set": {"backbone.width": 20}}
    (stop,) = Study(request, "1", 60, None, Progress(), bias=True).measure()["stops"]
    assert stop["bias"]["keep"] == 0.5
    rows = {row["draw"]: row for row in stop["bias"]["rows"]}
    assert list(rows) == ["uniform", "sadp", "exact"] and not any("mean" in row for row in rows.values())
    for row in rows.values():  # all three draws have exact weights
        whole = row["gradient"]["whole"]
        assert row["norm"] == "" and abs(whole["square"]) < 4 * whole["square_error"] < 0.2 and whole["cosine"] > 0.97
