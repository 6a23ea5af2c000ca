"""The tables of the regimes, on the pages of results and regimes, are what the committed records give.

`python -m tests.test_regimes` writes both tables anew.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from sadp_bench.core import registry
from sadp_bench.core.text import percent
from sadp_bench.records.record import Record
from sadp_bench.records.statistics import Estimate, Quantity, estimate, paired_factor
from sadp_bench.records.store import read_all
from sadp_bench.records.trials import sorted_out
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.rows import RatioRow
from sadp_bench.reports.versus import Versus, versus

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "regimes"
EVIDENCE = RECORDS / "evidence"
# SADP's label in each regime that has records, in the order of the page.
SADP = {"noise-mlp": "sadp (score=layers, smoothing=0.2)", "fits-mlp": "sadp (smoothing=0.2)"}
RIVALS = ("random", "hwbs", "ceiling", "full")
RATIOS = (0.3, 0.5, 0.7)


def compared(regime: str) -> list[Versus]:
    """Returns SADP against every other method of a regime, as `report --compare` shows it."""
    folder = RECORDS / regime
    found = read_all([folder])
    records, failures, searches = sorted_out(found.records, found.failures, [folder])
    return versus(Contents(records, failures, searches=searches).rows, SADP[regime], 0.005)


def answers() -> list[str]:
    """Returns a row for each regime, ratio and rival: accuracy's difference, fitted loss's factor, verdicts, n."""
    lines = []
    for regime in SADP:
        at = {(each.ratio, each.rival): each for each in compared(regime)}
        lines += [_line(regime, at[ratio, rival]) for ratio in RATIOS for rival in RIVALS]
    return lines


def others() -> list[str]:
    """Returns the same rows for rivals of one regime alone: InfoBatch, SADP's control, the readout's score."""
    lines = []
    for regime in SADP:
        rest = [each for each in compared(regime) if each.rival not in RIVALS]
        lines += [_line(regime, each) for each in sorted(rest, key=lambda each: (each.ratio, each.rival))]
    return lines


def rates(regime: str) -> list[str]:
    """Returns a row for each arm of a regime: the chosen learning rate at each ratio, and the accuracy."""
    folder = RECORDS / regime
    records, _, searches = sorted_out(read_all([folder]).records, [], [folder])
    found: dict[str, dict[float, RatioRow]] = {}
    for row in Contents(records, searches=searches).rows:
        found.setdefault(row.label, {})[row.ratio] = row
    lines = []
    for label, at in found.items():
        cells = [_chosen(at[ratio]) if ratio in at else "" for ratio in (0.0, *RATIOS)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _chosen(row: RatioRow) -> str:
    (rate,) = {run.spec.learning_rate for run in row.runs}
    return f"{_mean(row.accuracy)}<br>{row.fitted_loss.mean:.3f}, {rate:g}"


def _mean(found: Estimate) -> str:
    assert found.half is not None
    return f"{100 * found.mean:.2f} ± {100 * found.half:.2f}"


def _line(regime: str, each: Versus) -> str:
    loss = each.loss_factor
    return (
        f"| {regime}, {percent(each.ratio)} | {each.rival} | {_points(each.difference)} | {each.verdict} | "
        f"{loss.mean:.2f} [{loss.low:.2f}, {loss.high:.2f}] | {each.loss_verdict} | {each.difference.n} |"
    )


def _points(found: Estimate) -> str:
    assert found.half is not None
    return f"{100 * found.mean:+.2f} ± {100 * found.half:.2f}"


def evidence() -> list[str]:
    """Returns a row for each regime: full data's accuracy after two thirds and at the end, and the training fit."""
    by_regime: dict[tuple[str, int | None], list[Record]] = {}
    for _, record in read_all([EVIDENCE]).records:
        by_regime.setdefault((record.spec.backbone, record.spec.train_examples), []).append(record)
    lines = []
    for (backbone, examples), records in sorted(by_regime.items(), reverse=True):
        curves = [[row["test_accuracy"] for row in record.epochs] for record in records]
        mean = [100 * statistics.fmean(each) for each in zip(*curves, strict=True)]
        last = mean[len(mean) * 2 // 3 :]
        fitted = 100 * statistics.fmean(record.fitted_accuracy for record in records)
        loss = statistics.fmean(record.fitted_loss for record in records)
        lines.append(
            f"| {backbone}, {examples:,} | {mean[-1]:.2f} | {min(last):.2f} to {max(last):.2f} | {fitted:.2f} | {loss:.3f} |"
        )
    return lines


def by_norm() -> dict[str, dict[str, list[Record]]]:
    """Returns the records of the pilot on batch norm's statistics: by norm and method, in the order of their seeds."""
    found: dict[str, dict[str, list[Record]]] = {}
    records = [record for _, record in read_all([ROOT / "results" / "weighted-norm"]).records]
    for record in sorted(records, key=lambda record: record.spec.seed):
        norm = str(record.spec.backbone_options["norm"])
        found.setdefault(norm, {}).setdefault(record.spec.method, []).append(record)
    return found


def weighted_norm() -> list[str]:
    """Returns a row for each norm: accuracies, SADP's differences, and its fitted loss over random sampling's."""
    lines = []
    for norm, runs in sorted(by_norm().items()):
        accuracy = {method: [run.test_accuracy for run in of] for method, of in runs.items()}
        means = " | ".join(f"{100 * statistics.fmean(accuracy[method]):.2f}" for method in ("full", "random", "sadp"))
        minus = [_points(_paired(accuracy["sadp"], accuracy[rival])) for rival in ("random", "full")]
        loss = paired_factor(*({run.spec.seed: run.fitted_loss for run in runs[name]} for name in ("sadp", "random")))
        factor = f"{loss.mean:.2f} [{loss.low:.2f}, {loss.high:.2f}]"
        lines.append(f"| `{norm}` | {means} | {' | '.join(minus)} | {factor} |")
    return lines


def _paired(of: Sequence[float], against: Sequence[float]) -> Estimate:
    found = estimate([one - other for one, other in zip(of, against, strict=True)], Quantity.DIFFERENCE)
    assert found is not None
    return found


def exact_norm() -> list[str]:
    """Returns a row for each ratio of fits-mlp: losses of four arms, and SADP against the exact norm."""
    runs: dict[tuple[str, float], dict[int, Record]] = {}
    for _, record in read_all([RECORDS / "fits-mlp", ROOT / "results" / "exact-norm"]).records:
        options = record.spec.method_options
        name = record.spec.method if options.get("score") != "exact" else "exact"
        if record.spec.evaluate_on == "test" and options.get("smoothing") != 1.0:
            runs.setdefault((name, record.spec.ratio), {})[record.spec.seed] = record
    lines = []
    for ratio in RATIOS:
        of = {name: runs[name, ratio] for name in ("random", "sadp", "exact", "ceiling")}
        assert of["sadp"].keys() == of["exact"].keys()
        assert {record.spec.learning_rate for name in ("random", "sadp", "exact") for record in of[name].values()} == {
            0.025
        }
        means = (f"{statistics.fmean(record.fitted_loss for record in each.values()):.3f}" for each in of.values())
        loss = paired_factor(*({seed: run.fitted_loss for seed, run in of[name].items()} for name in ("sadp", "exact")))
        pair = [[of[name][seed].test_accuracy for seed in sorted(of[name])] for name in ("sadp", "exact")]
        lines.append(
            f"| {percent(ratio)} | {' | '.join(means)} | {loss.mean:.2f} [{loss.low:.2f}, {loss.high:.2f}] | "
            f"{_points(_paired(*pair))} | {len(of['exact'])} |"
        )
    return lines


def falling() -> list[str]:
    """Returns a row for each method and ratio of fits-mlp: falling against constant budget, paired by seed."""
    runs: dict[tuple[str, float, str], dict[int, Record]] = {}
    for _, record in read_all([RECORDS / "fits-mlp", RECORDS / "fits-mlp-falling"]).records:
        if record.spec.evaluate_on == "test" and record.spec.method_options.get("smoothing") != 1.0:
            runs.setdefault((record.spec.method, record.spec.ratio, record.spec.budget), {})[record.spec.seed] = record
    lines = []
    for method, ratio in product(("random", "hwbs", "sadp"), RATIOS):
        pair = [runs[method, ratio, budget] for budget in ("falling", "constant")]
        assert pair[0].keys() == pair[1].keys()
        (_,) = {record.spec.learning_rate for each in pair for record in each.values()}
        loss = paired_factor(*({seed: record.fitted_loss for seed, record in each.items()} for each in pair))
        accuracy = _paired(*([each[seed].test_accuracy for seed in sorted(each)] for each in pair))
        lines.append(
            f"| {registry.display_name('method', method)}, {percent(ratio)} | {_points(accuracy)} | "
            f"{loss.mean:.2f} [{loss.low:.2f}, {loss.high:.2f}] | {accuracy.n} |"
        )
    return lines


PAGES = {
    "falling budget": ("docs/regimes.md", falling),
    "exact norm": ("docs/regimes.md", exact_norm),
    "weighted-norm": ("docs/sadp.md", weighted_norm),
    "answers": ("docs/results.md", answers),
    "evidence": ("docs/regimes.md", evidence),
    **{f"arms of {regime}": ("docs/regimes.md", partial(rates, regime)) for regime in SADP},
    "others": ("docs/regimes.md", others),
}


def marks(name: str) -> tuple[str, str]:
    """Returns the comments before and behind a table of a page."""
    return f"<!-- {name} -->\n", f"<!-- end {name} -->"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_table_of_the_records(name: str) -> None:
    page, made = PAGES[name]
    before, behind = marks(name)
    shown = (ROOT / page).read_text().split(before)[1].split(behind)[0].splitlines()
    assert shown[2:] == made()
    assert len(shown) > 3


def test_the_sentences_of_the_answer_state_numbers_of_its_table() -> None:
    page = (ROOT / "docs/results.md").read_text().split("## The answer\n")[1].split("\n## ")[0]
    sentences = page.split(marks("answers")[1])[1]
    findings = (ROOT / "README.md").read_text().split("## Findings\n")[1].split("On CIFAR-10")[0]
    stated = re.findall(r"[+-]\d\.\d\d ± \d\.\d\d", sentences + findings)
    assert len(stated) >= 11
    assert set(stated) <= set(re.findall(r"[+-]\d\.\d\d ± \d\.\d\d", "\n".join([*answers(), *weighted_norm()])))


def test_only_infobatchs_rates_lie_at_the_edge_of_a_search() -> None:
    at_edge = set()
    for regime in SADP:
        folder = RECORDS / regime
        records, _, searches = sorted_out(read_all([folder]).records, [], [folder])
        rows = Contents(records, searches=searches).rows
        assert all(row.choice is not None and len(row.choice.points) == 5 for row in rows)
        at_edge |= {(regime, row.label, row.ratio) for row in rows if row.choice is not None and row.choice.edges}
    assert at_edge == {("noise-mlp", "infobatch", 0.5), ("noise-mlp", "infobatch", 0.7)}


def test_the_score_makes_the_gain_and_hwbs_and_the_ceiling_are_as_stated() -> None:
    """The sentences without a number: the control against random, the ceiling against full data, hwbs."""
    folder = RECORDS / "noise-mlp"
    records, _, searches = sorted_out(read_all([folder]).records, [], [folder])
    rows = Contents(records, searches=searches).rows
    control = {each.rival: each.verdict for each in versus(rows, "sadp (score=layers, smoothing=1.0)", 0.005)}
    assert control["random"] == "level"
    records, _, searches = sorted_out(read_all([RECORDS / "fits-mlp"]).records, [], [RECORDS / "fits-mlp"])
    fits = Contents(records, searches=searches).rows
    for method in ("random", "ceiling", "hwbs"):
        assert {each.verdict for each in versus(fits, method, 0.005) if each.rival == "full"} == {"lossless"}
    of_control = versus(fits, "sadp (smoothing=1.0)", 0.005)
    assert {each.verdict for each in of_control if each.rival == "random"} == {"level"}
    assert {each.verdict for each in versus(rows, "ceiling", 0.005) if each.rival == "full"} == {"lossless"}
    same = [each for each in compared("noise-mlp") if each.rival in ("hwbs", "sadp (score=readout, smoothing=0.2)")]
    assert {each.verdict for each in same} == {"level"}


def test_the_sentences_on_the_exact_norm_state_its_table() -> None:
    rows = {row.split(" | ")[0]: row for row in exact_norm()}
    assert "0.99 [0.86, 1.13]" in rows["| 30 %"] and " 1.17 [" in rows["| 50 %"] and " 1.32 [" in rows["| 70 %"]
    assert "| 0.061 | 0.022 |" in rows["| 70 %"]
    differences = [re.findall(r"([+-]\d\.\d\d) ± (\d\.\d\d)", row)[0] for row in rows.values()]
    assert all(abs(float(mean)) + float(half) < 0.5 for mean, half in differences)


def test_the_sentences_on_the_falling_budget_state_its_table() -> None:
    found = [re.findall(r"([+-]?\d\.\d\d) (?:± (\d\.\d\d)|\[(\d\.\d\d), (\d\.\d\d)\])", row) for row in falling()]
    assert all(abs(float(accuracy[0])) + float(accuracy[1]) < 0.5 for accuracy, _ in found)
    losses = [(loss, float(low), float(high)) for _, (loss, _, low, high) in found]
    assert all(low <= 1 <= high for _, low, high in losses[:3])  # random sampling
    assert not any(high < 1 for *_, high in losses)
    assert [loss for loss, low, _ in losses[6:] if low > 1] == ["1.22", "1.26"]  # SADP


def test_the_weighted_norm_does_not_lower_the_factor_of_the_loss() -> None:
    gains = {}
    for norm, runs in by_norm().items():
        logs = ([math.log(run.fitted_loss) for run in runs[method]] for method in ("sadp", "random"))
        gains[norm] = [of - against for of, against in zip(*logs, strict=True)]
    found = _paired(gains["weighted"], gains["batch"])
    assert found.n == 16 and found.high > 0
    assert f"logarithms is {found.mean:+.3f} ± {found.half:.3f}" in (ROOT / "docs/sadp.md").read_text()


def test_every_comparison_of_the_answer_is_decided_within_the_stated_width() -> None:
    wide, undecided = [], []
    for regime in SADP:
        for each in compared(regime):
            at = regime, each.ratio, each.rival
            assert each.difference.half is not None and each.difference.n == 10
            assert each.verdict not in ("undecided", None)
            if each.difference.half > 0.003 and each.rival in RIVALS:
                wide.append(at)
                assert math.log(each.loss_factor.high / each.loss_factor.low) / 2 <= math.log(1.1)
            if each.loss_verdict == "undecided":
                undecided.append(at)
    assert wide == [("fits-mlp", 0.5, "hwbs")]
    assert undecided == [("fits-mlp", 0.3, "ceiling"), ("fits-mlp", 0.5, "hwbs")]


def test_the_stated_seeds_would_decide_the_losses() -> None:
    """The normal rule gives the seeds: an interval of half width h at n seeds must lie within a tenth of the loss."""
    needed = {}
    for each in compared("fits-mlp"):
        if each.loss_verdict == "undecided":
            low, mean, high = map(math.log, (each.loss_factor.low, each.loss_factor.mean, each.loss_factor.high))
            needed[each.rival] = each.difference.n * ((high - low) / 2 / (math.log(1.1) - abs(mean))) ** 2
    assert needed["ceiling"] == pytest.approx(45, abs=5) and needed["hwbs"] == pytest.approx(15, abs=3)


def test_full_data_is_flat_over_the_last_fifth_and_not_over_the_last_third() -> None:
    by_size: dict[int | None, list[Record]] = {}
    for _, record in read_all([EVIDENCE]).records:
        by_size.setdefault(record.spec.train_examples, []).append(record)
    for records in by_size.values():
        curves = [[row["test_accuracy"] for row in record.epochs] for record in records]
        mean = [statistics.fmean(each) for each in zip(*curves, strict=True)]
        fifth, third = mean[len(mean) * 4 // 5 :], mean[len(mean) * 2 // 3 :]
        assert max(fifth) - min(fifth) < 0.003 < max(third) - min(third)


def write(name: str) -> None:
    """Writes a page's table anew."""
    page, made = PAGES[name]
    text = (ROOT / page).read_text()
    before, behind = marks(name)
    head, rest = text.split(before)
    old, tail = rest.split(behind)
    rows = [*old.splitlines()[:2], *made()]
    (ROOT / page).write_text(head + before + "\n".join(rows) + "\n" + behind + tail)


if __name__ == "__main__":
    for page in PAGES:
        write(page)
