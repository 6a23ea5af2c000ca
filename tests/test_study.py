"""The study of scores: its numbers against simulation and by hand, and that the run it studies is the run without it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Answer, command
from hypothesis import given
from hypothesis import strategies as st
from small import SMALL, hooks_of, resolved, small_bench, weights_of
from torch import Tensor, nn

from sadp_bench import score_cost, study, studyfile
from sadp_bench.backbones.plain import CNN
from sadp_bench.collect import COLLECTED, Collector, exact_norms, observations, recalibrated
from sadp_bench.engine import survey_for
from sadp_bench.errors import BadInput
from sadp_bench.progress import Progress
from sadp_bench.pruners.sadp import SADP
from sadp_bench.report.study_plots import apart, scores_figure, variance_figure
from sadp_bench.sampling import inclusion_probability, smooth
from sadp_bench.store import read_all
from sadp_bench.study import OPTIMUM_SMOOTHING, Study, compared, draw_variance, stops
from sadp_bench.study_table import number
from sadp_bench.taps import norm_layers
from sadp_bench.workbench import Bench

ASKED: dict[str, Any] = {name: value for name, value in SMALL.items() if name not in ("method", "ratio")}
ASKED["set"] = {"backbone.width": 4}
WORDS = [
    "--train-examples",
    "130",
    "--batch-size",
    "50",
    "--timesteps",
    "2",
    "--threads",
    "1",
    "--set",
    "backbone.width=4",
]
STUDY = ["study", *WORDS, "--epochs", "3", "--at", "1, 3", "--examples", "60", "--quiet"]


def small_study(at: str = "1,2", examples: int = 60, **asked: Any) -> Study:
    asked["set"] = {**ASKED["set"], **asked.get("set", {})}
    return Study({**ASKED, **asked}, at, examples, None, Progress())


@pytest.fixture(scope="module")
def whole() -> tuple[Study, dict[str, Any]]:
    """A study of an augmented run of eight epochs, so that every age is there."""
    made = small_study("1,2,3,8", epochs=8, augment="crop")
    return made, made.measure()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, Path, Path]:
    """What the command line makes: its answer, the file it keeps, the folder of plots."""
    folder = tmp_path_factory.mktemp("kept")
    answer = command(*STUDY, "--out", folder / "studies", "--plots", folder / "plots")
    (path,) = (folder / "studies").iterdir()
    return answer, path, folder / "plots"


# Numbers


def test_the_variance_by_hand() -> None:
    norm_n = torch.tensor([3.0, 1.0]).double()
    assert draw_variance(norm_n, torch.ones(2), 0.5, 0.02) == pytest.approx(9 + 1)
    assert draw_variance(norm_n, norm_n, 0.5, 1e-12) == pytest.approx(9 / 3 + 1 * 3)  # pi = 3/4 and 1/4
    assert draw_variance(norm_n, norm_n, 0.5, 0.5) == pytest.approx(9 * (8 / 5 - 1) + 1 * (8 / 3 - 1))  # pi = 5/8, 3/8
    assert draw_variance(norm_n, torch.tensor([1.0, 3.0]), 0.5, 1e-12) == pytest.approx(9 * 3 + 1 / 3)


@pytest.mark.parametrize("keep", studyfile.KEEPS)
def test_the_variance_is_that_of_simulated_poisson_sampling(keep: float) -> None:
    generator = torch.Generator().manual_seed(1)
    gradient_nD = torch.randn(20, 7, generator=generator, dtype=torch.float64).exp()
    score_n = torch.rand(20, generator=generator, dtype=torch.float64)
    p_n = inclusion_probability(smooth(score_n, 0.02), round(keep * 20))
    drawn_Rn = (torch.rand(200_000, 20, generator=generator, dtype=torch.float64) < p_n).double()
    variance = ((drawn_Rn / p_n) @ gradient_nD).var(0).sum()
    assert draw_variance(gradient_nD.norm(dim=1), score_n, keep, 0.02) == pytest.approx(float(variance), rel=0.02)


@given(st.lists(st.floats(0.01, 100), min_size=10, max_size=30), st.integers(0, 2**32))
def test_uniform_is_1_over_uniform_the_exact_norm_1_over_the_optimum_and_nothing_is_below(
    norms: list[float], seed: int
) -> None:
    norm_n = torch.tensor(norms).double()
    uniform, exact = compared(norm_n, torch.ones_like(norm_n)), compared(norm_n, norm_n, OPTIMUM_SMOOTHING)
    other = compared(norm_n, torch.rand(len(norms), generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    for keep in ("0.7", "0.5", "0.3"):
        assert uniform["over_uniform"][keep] == 1 and exact["over_optimum"][keep] in (1, None)
        for cell in (uniform, other):
            assert cell["over_optimum"][keep] is None or cell["over_optimum"][keep] >= 1 - 1e-4


def test_correlations_by_hand() -> None:
    cell = compared(torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([1.0, 4.0, 9.0, 160.0]).double())
    assert cell["spearman"] == 1 and 0 < cell["pearson"] < 0.9
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1))
    assert compared(torch.arange(4.0), torch.tensor([0.0, 2.0, 1.0, 3.0]))["spearman"] == pytest.approx(0.8)


NOTHING = dict.fromkeys(("0.7", "0.5", "0.3"))


def test_what_is_no_number_is_none() -> None:
    norm_n, zero_n = torch.arange(1.0, 11).double(), torch.zeros(10).double()
    constant = compared(norm_n, zero_n)  # says nothing, so it draws uniformly
    assert constant["spearman"] is None and constant["pearson"] is None and constant["over_uniform"]["0.5"] == 1
    for bad in (math.nan, math.inf):
        cell = compared(norm_n, torch.full((10,), bad).double())
        assert cell == {"spearman": None, "pearson": None, "over_uniform": NOTHING, "over_optimum": NOTHING}
    assert compared(zero_n, norm_n)["over_uniform"] == compared(zero_n, norm_n)["over_optimum"] == NOTHING
    few_n = torch.cat([torch.ones(2), torch.zeros(8)]).double()  # the optimum has no variance
    assert compared(few_n, norm_n)["over_optimum"] == NOTHING
    assert compared(torch.full((10,), math.nan), norm_n)["over_uniform"] == NOTHING
    assert study.finite({"a": [math.nan, 1.5, (math.inf,)], "b": "nan"}) == {"a": [None, 1.5, [None]], "b": "nan"}


def test_numbers_fit_their_columns() -> None:
    shown = {1.0: "1.000", -0.1619: "-0.162", 12.345: "12.35", 123.45: "123.5", 4321.0: "4321", 123456.0: "1e+05"}
    assert {value: number(value) for value in shown} == shown and number(None) == "–"


def test_stops_are_epochs_in_order() -> None:
    assert stops("1, 5,10", 10) == [1, 5, 10] and stops(None, 20) == [1, 5, 10, 20] and stops(None, 1) == [1]


def test_labels_stand_apart_near_where_they_belong() -> None:
    assert apart([0.1, 0.5, 0.9], 0.06) == [0.1, 0.5, 0.9]
    assert apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert apart([0.01, 0.02, 0.03], 0.1) == pytest.approx([0, 0.1, 0.2])
    places = apart([0.2, 0.21, 0.24, 0.8, 0.81], 0.05)
    assert all(b - a >= 0.05 - 1e-9 for a, b in zip(places, places[1:], strict=False))


# The truth


def statistics_by_hand(model: nn.Module, inputs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """By norm the means over batches of each batch's mean and unbiased variance by channel, by hooks of the test's own."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norm_layers(model)}

    def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0].movedim(-3, 0).flatten(1)
        seen[norm].append((x.mean(1), x.var(1)))

    handles = [norm.register_forward_pre_hook(note) for norm in seen]
    model.train()
    for input in inputs:
        model(input)
    for handle in handles:
        handle.remove()
    return [(torch.stack([m for m, _ in of]).mean(0), torch.stack([v for _, v in of]).mean(0)) for of in seen.values()]


def everything(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "momentum": [norm.momentum for norm in norm_layers(model)],
        "hooks": hooks_of(model),
        "random": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("backbone", ["cnn", "sew-resnet18"])
def test_recalibrated_statistics_are_the_batches_own_and_leave_no_trace(backbone: str) -> None:
    bench = small_bench(backbone=backbone, epochs=1)
    list(bench.rows())
    bench.model.train()
    before, batches = everything(bench.model), torch.arange(120).split(40)
    with recalibrated(bench.model, bench.data, batches):
        now = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norm_layers(bench.model)]
        assert not any(module.training for module in bench.model.modules())
        exact_norms(bench.model, bench.data, bench.spec, torch.arange(30), Progress())
    assert everything(bench.model) == before
    expected = statistics_by_hand(bench.model, [bench.data.input(index_B) for index_B in batches])
    for got, wanted in zip(now, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_recalibration_is_undone_by_an_error_too() -> None:
    bench = small_bench()
    before = everything(bench.model)
    with pytest.raises(KeyboardInterrupt), recalibrated(bench.model, bench.data, [torch.arange(20)]):
        raise KeyboardInterrupt
    assert everything(bench.model) == before


@pytest.mark.parametrize("training", [False, True])
def test_looking_leaves_no_trace(training: bool) -> None:
    bench = small_bench(epochs=1)
    list(bench.rows())
    before, collector = everything(bench.model), Collector(torch.arange(60))
    collector.prepare(bench.lab)
    batches = torch.arange(60).split(30)
    for seen in observations(bench.model, bench.data, bench.spec, batches, collector.watch, training, Progress()):
        collector.observe(seen)
    assert everything(bench.model) == before


def test_exact_norms_are_one_backward_pass_per_example() -> None:
    bench = small_bench()
    norm_n = exact_norms(bench.model, bench.data, bench.spec, index_n := torch.tensor([3, 70, 5]), Progress())
    bench.model.eval()
    for norm, index in zip(norm_n, index_n, strict=True):
        bench.model.zero_grad()
        logits = bench.model(bench.data.input(index[None])).mean(0)
        nn.functional.cross_entropy(logits, bench.data.label_N[index][None]).backward()
        assert float(norm) == pytest.approx(sum(float(p.grad.square().sum()) for p in bench.model.parameters()) ** 0.5)


# The run and its sources


def test_the_studied_run_is_the_run_that_nobody_studies(whole: tuple[Study, dict[str, Any]]) -> None:
    plain = Bench(*resolved(epochs=8, augment="crop"), Progress())
    plain.pruner.prepare(plain.lab)
    losses = [row["train_loss"] for row in plain.rows()]
    made, found = whole
    assert [row["train_loss"] for row in found["rows"]] == losses
    ended, expected = weights_of(made.model), weights_of(plain.model)
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("readout", {"score": "readout", "memory": 0.0}),
        ("layers", {"memory": 0.0}),
        ("spikes", {"score": "spikes", "memory": 0.0}),
        ("sadp", {}),
    ],
)
def test_age_0_is_what_sadp_itself_collects_where_it_keeps_everything(
    name: str, options: dict[str, Any], whole: tuple[Study, dict[str, Any]]
) -> None:
    bench = small_bench(SADP(0.0, **options), epochs=8, augment="crop")
    method: Any = bench.pruner
    made, found = whole
    at = {stop["epoch"]: stop["examples"][name]["age 0"] for stop in found["stops"]}
    for row in bench.rows():
        if row["epoch"] + 1 in at:
            assert at[row["epoch"] + 1] == method.square_N[made.index_n].double().sqrt().tolist()


def test_loss_and_el2n_of_age_0_are_those_of_the_epochs_steps(whole: tuple[Study, dict[str, Any]]) -> None:
    made, found = whole
    seen: dict[int, tuple[float, float]] = {}

    class Watch(SADP):
        def observe(self, seen_now: Any) -> None:
            p_BC = torch.softmax(seen_now.logits_TBC.mean(0), 1)
            for index, label, p_C in zip(seen_now.index_B.tolist(), seen_now.label_B.tolist(), p_BC, strict=True):
                target_C = torch.zeros(10).index_fill(0, torch.tensor(label), 1.0)
                seen[index] = float(-p_C[label].log()), float((p_C - target_C).norm())

    for _ in small_bench(Watch(0.0, score="readout"), epochs=8, augment="crop").rows():
        pass
    last = found["stops"][-1]["examples"]
    for place, index in enumerate(made.index_n.tolist()):
        assert last["loss"]["age 0"][place] == pytest.approx(seen[index][0], rel=1e-4, abs=1e-5)
        assert last["el2n"]["age 0"][place] == pytest.approx(seen[index][1], rel=1e-4, abs=1e-5)


def test_ages_are_counted_back_from_the_epoch_that_has_ended() -> None:
    made = small_study("2,7", epochs=7)
    collector = Collector(made.index_n)
    collector.prepare(made.bench.lab)
    for epoch in range(7):
        collector.values = lambda epoch=epoch: {"loss": torch.tensor([float(epoch)])}  # type: ignore[method-assign]
        collector.keep(epoch)
    assert list(collector.by_epoch) == [1, 2, 3, 4, 5, 6]
    made.truth = {1: torch.tensor([21.0]), 6: torch.tensor([26.0])}
    assert {source: {k: v.tolist() for k, v in of.items()} for source, of in made._aged(6, collector).items()} == {
        "age 0": {"loss": [6.0]},
        "age 1": {"loss": [5.0]},
        "age 2": {"loss": [4.0]},
        "age 5": {"loss": [1.0], "exact": [21.0]},
    }


def test_what_a_study_holds(whole: tuple[Study, dict[str, Any]]) -> None:
    made, found = whole
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [stop["epoch"] for stop in found["stops"]] == found["at"] == [1, 2, 3, 8]
    assert sorted(set(found["index"])) == sorted(found["index"]) and len(found["index"]) == 60 == found["examples"]
    first, _, third, last = (stop["scores"] for stop in found["stops"])
    sources = {"frozen", "training", "age 0"}
    assert set(first) == {"uniform", "exact", *COLLECTED} == set(studyfile.LABELS)
    assert all(set(first[name]) == sources for name in (*COLLECTED, "uniform")) and set(first["exact"]) == {"frozen"}
    assert all(set(last[name]) == {*sources, "age 1", "age 2", "age 5"} for name in COLLECTED)
    assert set(third["exact"]) == {"frozen", "age 1", "age 2"} and set(last["exact"]) == {"frozen", "age 5"}
    for stop in found["stops"]:
        assert set(stop["scores"]["exact"]["frozen"]["over_optimum"].values()) == {1}
        assert set(stop["scores"]["uniform"]["age 0"]["over_uniform"].values()) == {1}
        assert stop["lag"]["spearman"] is not None and stop["spikes_cv"] > 0
        assert all(len(values) == 3 for values in (stop["input_squares_cv"], *stop["tightness"].values()))
        assert all(0 < k <= 1 + 1e-6 for k in stop["tightness"]["frozen"])
        norms = torch.tensor(stop["examples"]["exact"]["frozen"], dtype=torch.float64)
        scores = torch.tensor(stop["examples"]["plain"]["frozen"], dtype=torch.float64)
        assert stop["scores"]["plain"]["frozen"] == compared(norms, scores)
    assert made.bench.training.rows == found["rows"] and found["layers"] == ["stem.0", "body.1", "body.5"]


class Surveyed(SADP):
    """Asks to be shown given examples in evaluation mode, as `refresh` does."""

    def __init__(self, index_n: Tensor) -> None:
        super().__init__(0.0, score="readout")
        self.index_n = index_n

    def to_survey(self, epoch: int) -> Tensor:
        return self.index_n


def test_truth_and_frozen_scores_have_the_recalibrated_statistics_and_the_lag_the_running_ones(
    whole: tuple[Study, dict[str, Any]],
) -> None:
    made, found = whole  # the network is now as it was at the last stop
    bench, last, index_n = made.bench, found["stops"][-1], made.index_n
    method = Surveyed(index_n)
    method.prepare(bench.lab)
    with recalibrated(bench.model, bench.data, made._statistics_batches(7)):
        norm_n = exact_norms(bench.model, bench.data, made.spec, index_n, Progress())
        survey_for(method, bench.model, bench.data, made.spec, 1)
    assert norm_n.tolist() == last["examples"]["exact"]["frozen"]
    readout_n = torch.tensor(last["examples"]["readout"]["frozen"]).float()
    torch.testing.assert_close(readout_n, method.square_N[index_n].sqrt(), rtol=1e-4, atol=1e-5)
    lagging_n = exact_norms(bench.model, bench.data, made.spec, index_n, Progress())
    assert last["lag"] == compared(norm_n, lagging_n) and not torch.allclose(lagging_n, norm_n)


def test_the_last_batch_in_training_mode_is_filled_with_others() -> None:
    made = small_study(examples=60)
    batches = made._filled_batches(0)
    assert [len(batch) for batch in batches] == [50, 50]
    joined = torch.cat(batches)
    assert torch.equal(joined[:60], made.index_n) and len(joined.unique()) == 100
    assert [len(batch) for batch in small_study(examples=120)._filled_batches(0)] == [50, 50, 30]  # there are 130


@pytest.mark.parametrize(
    "asked",
    [
        {"set": {"backbone.norm": "none"}},
        {"precision": "fp64"},
        {"precision": "bf16"},
        {"loss": "step"},
        {"optimizer": "adamw"},
    ],
    ids=str,
)
def test_other_settings(asked: dict[str, Any]) -> None:
    found = small_study("1", 20, epochs=1, **asked).measure()
    (stop,) = found["stops"]
    assert (stop["lag"] is None) == ("set" in asked)
    assert all(
        cell["over_uniform"]["0.5"] is not None for sources in stop["scores"].values() for cell in sources.values()
    )


def test_the_cost_leaves_the_run_as_it_is_and_names_every_score() -> None:
    bench = small_bench(epochs=1)
    list(bench.rows())
    before = everything(bench.model)
    cost: Any = score_cost.measure(bench, Progress(), rounds=2)
    assert everything(bench.model) == before
    assert list(cost["scores"]) == [*COLLECTED, "exact"] and set(cost["calibration"]) == {
        "first_batch",
        "share_of_epoch",
    }
    assert cost["rounds"] == 2 and cost["step_seconds"] > 0


# The command


def test_the_table_says_what_the_file_holds(kept: tuple[Answer, Path, Path]) -> None:
    answer, path, _ = kept
    assert answer.code == 0 and "digits · cnn · 60 of 130 examples" in answer.out and str(path.name) in answer.out
    assert all(f"\n{label} " in answer.out for label in studyfile.LABELS.values())
    assert max(map(len, answer.out.splitlines()[:-1])) <= 104
    last = json.loads(path.read_text())["stops"][-1]["scores"]["layers"]
    (row,) = [line for line in answer.out.splitlines() if line.startswith("layers ")][1:2]
    cells = [last["frozen"][name] for name in ("spearman", "pearson")]
    cells += [
        last["frozen"][over][f"{keep:g}"] for over in ("over_uniform", "over_optimum") for keep in studyfile.KEEPS
    ]
    cells += [last.get(source, {}).get("over_optimum", {}).get("0.5") for source in studyfile.SOURCES[1:]]
    assert row.split()[1:] == [number(value) for value in cells] and row.endswith("–")


def test_json_is_one_object_and_comes_back_from_its_file(kept: tuple[Answer, Path, Path], tmp_path: Path) -> None:
    answer = command(*STUDY[:-1], "--json", "--out", tmp_path)
    (path,) = tmp_path.iterdir()
    assert answer.code == 0 and json.loads(answer.out) == json.loads(path.read_text()) == studyfile.read(path)
    assert answer.out.count("\n") == 1 and "exact gradient norms" in answer.err and "timing" in answer.err
    assert path.name == kept[1].name == f"digits-cnn-s0-{studyfile.read(path)['key']}.study.json"
    assert command("study", "--from", path, "--json").out == answer.out
    same = {name: value for name, value in studyfile.read(kept[1]).items() if name not in ("finished", "cost", "rows")}
    assert same.items() <= studyfile.read(path).items()


def test_a_kept_study_is_shown_and_drawn_again_the_same(kept: tuple[Answer, Path, Path], tmp_path: Path) -> None:
    answer, path, plots = kept
    again = command("study", "--from", path, "--plots", tmp_path)
    assert again.code == 0 and again.out.splitlines()[:-1] == answer.out.splitlines()[:-1]
    names = sorted(drawn.name for drawn in plots.iterdir())
    assert [name.rpartition("-")[2] for name in names] == ["scores.png", "scores.svg", "variance.png", "variance.svg"]
    for name in names:
        assert (plots / name).read_bytes() == (tmp_path / name).read_bytes() and (plots / name).stat().st_size > 10_000


def test_the_figures_show_what_the_file_holds(kept: tuple[Answer, Path, Path]) -> None:
    found = studyfile.read(kept[1])
    norms = found["stops"][-1]["examples"]["exact"]["frozen"]
    panels = [axes for axes in scores_figure(found).axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [studyfile.LABELS[name] for name in COLLECTED]
    for axes, name in zip(panels, COLLECTED, strict=True):
        x_n, y_n = axes.collections[-1].get_offsets().T
        wanted = torch.tensor(found["stops"][-1]["examples"][name]["frozen"]).double()
        wanted *= torch.tensor(norms).double().mean() / wanted.mean()
        low, high = axes.get_ylim()
        assert x_n.tolist() == norms and y_n.tolist() == pytest.approx(wanted.clamp(low, high).tolist(), rel=1e-4)
    for axes, source in zip(variance_figure(found).axes, ("frozen", "age 0"), strict=True):
        lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
        for name in (*COLLECTED, "uniform"):
            cells = [stop["scores"][name][source]["over_optimum"]["0.5"] for stop in found["stops"]]
            assert ([1, 3], cells) in lines


def test_reports_leave_studies_alone(kept: tuple[Answer, Path, Path]) -> None:
    assert read_all([kept[1].parent]) == ([], [], [])


def test_ctrl_c_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(score_cost, "measure", interrupted)
    assert command(*STUDY, "--out", tmp_path / "out").code == 130 and not list((tmp_path / "out").iterdir())


class Unknown(CNN):
    """With a layer whose exact gradient norms nobody knows."""

    def __init__(self, *given: Any, width: int = 4) -> None:
        super().__init__(*given, width=width)
        self.body.append(nn.PReLU())


BAD = {
    "at beyond the run": (["--at", "1,4"], "--at takes rising epochs, each from 1 to the run's 3 and once, not '1,4'"),
    "at 0": (["--at", "0,1"], "from 1 to the run's 3"),
    "at falling": (["--at", "3,1"], "rising"),
    "at twice": (["--at", "1,1"], "and once"),
    "at words": (["--at", "first"], "--at takes epochs separated by commas, such as 1,5,10, not 'first'"),
    "at empty": (["--at", ""], "separated by commas"),
    "at a fraction": (["--at", "1.5"], "separated by commas"),
    "examples too many": (["--examples", "131"], "--examples is from 10 to the training set's 130, not 131"),
    "examples too few": (["--examples", "9"], "--examples is from 10"),
    "examples a word": (["--examples", "all"], "--examples"),
    "a method": (["--method", "sadp"], "No such option: --method"),
    "a layer that exact norms don't know": (["--backbone", "test_study:Unknown"], "exact gradient norms know"),
    "epochs 0": (["--epochs", "0"], "--epochs is at least 1"),
    "setting of the backbone": (["--set", "backbone.widht=8"], "did you mean 'width'"),
    "out is a file": (["--out", "file"], "can't write file/"),
    "from nothing": (["--from", "nowhere.json"], "leave the options of training out"),
}
BAD_FILES = {
    "nothing": (None, "unreadable"),
    "no JSON": ("{", "not JSON"),
    "a list": ("[]", "not a study"),
    "a record": ('{"schema": 1}', "not a study"),
    "of another schema": ('{"schema": 2, "kind": "study"}', "this version reads schema 1"),
    "empty": ('{"schema": 1, "kind": "study"}', "the study lacks at, cost, "),
}


def refused(answer: Answer, says: str) -> None:
    assert answer.code == 2 and answer.out == ""
    assert answer.err.count("\n") == 1 and answer.err.startswith("sadp-bench: ") and says in answer.err


@pytest.mark.parametrize(("words", "says"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_before_training(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("text")
    monkeypatch.setattr(Study, "measure", lambda self: pytest.fail("it trains"))
    refused(command(*STUDY, *words), says)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_is_no_study_is_one_line(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "bad.study.json").write_text(text)
    refused(command("study", "--from", tmp_path / "bad.study.json"), says)


def damaged(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, each a whole study but for one thing."""

    def but(change: Any) -> dict[str, Any]:
        copy = json.loads(json.dumps(found))
        change(copy)
        return copy

    return {
        "an example too few": but(lambda s: s["stops"][0]["examples"]["loss"]["frozen"].pop()),
        "no stops": but(lambda s: s["stops"].clear()),
        "steering the terminal": but(lambda s: s["spec"].update(dataset="\x1b[2J")),
        "text for a number": but(lambda s: s["stops"][1].update(norm_mean="big")),
        "a cell without its keeps": but(lambda s: s["stops"][1]["scores"]["loss"]["age 0"]["over_optimum"].clear()),
        "lag of a wrong type": but(lambda s: s["stops"][0].update(lag={"spearman": 1})),
        "cost without noise": but(lambda s: s["cost"].pop("noise")),
        "an impossible spec": but(lambda s: s["spec"].update(epochs=-1)),
        "no list of layers": but(lambda s: s.update(layers="conv")),
    }


def test_a_damaged_study_is_refused_and_never_a_traceback(kept: tuple[Answer, Path, Path], tmp_path: Path) -> None:
    for name, content in damaged(json.loads(kept[1].read_text())).items():
        path = tmp_path / f"{name}.study.json"
        path.write_text(json.dumps(content))
        with pytest.raises(BadInput, match=name):
            studyfile.read(path)
