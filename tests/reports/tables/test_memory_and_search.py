"""Memory, searches and every rendering of records on the three axes."""

import json
import typing

import pytest

from sadp_bench.reports import plots, render
from sadp_bench.reports.contents import Contents
from sadp_bench.reports.plots.memory import memory_figure
from sadp_bench.reports.tables.axes import axes_rows
from sadp_bench.reports.tables.memory import memory_rows
from sadp_bench.reports.tables.ticket_search import search_rows
from tests.example_records import ENVIRONMENT
from tests.reports.axes_records import EARLY, EB, IMP, MIB, PQ, SLTT, everything, over_time, run, three_axes
from tests.reports.formats.page.reading import tree
from tests.reports.plots.helpers import bars_of, lines_of, near

TWO_SEEDS = 12.706205 / 2  # half-width of the 95 % interval of two numbers that differ by 1


def test_memory_is_a_row_for_each_backprop_and_number_of_steps():
    table = memory_rows(over_time())
    assert [(row.time, row.timesteps, row.n) for row in table] == [
        (name, steps, 2) for name in ("bptt", "sltt", "sltt-k K=1") for steps in (2, 4, 8)
    ]
    # 25 MiB a step, and one more with the second seed
    assert [row.train_memory_bytes.mean / MIB for row in table[:3]] == [50.5, 100.5, 200.5]
    assert table[0].train_memory_bytes.high / MIB == pytest.approx(50.5 + TWO_SEEDS)
    assert {row.group for row in table} == {"digits · cnn · 1,000 examples · 10 epochs · fp32"}
    shown = render(over_time(), [], "markdown")
    assert "| bptt | 50.5 ±6.4 (2) | 100.5 ±6.4 (2) | 200.5 ±6.4 (2) |" in shown
    assert "| backprop | T=2 | T=4 | T=8 |" in shown


def test_groups_stand_in_the_order_of_their_numbers_of_steps():
    table = axes_rows([run(timesteps=steps, **axis) for steps in (16, 2, 8) for axis in ({}, SLTT)])
    assert [row.settings["timesteps"] for row in table] == [2, 2, 8, 8, 16, 16]


def test_memory_needs_several_numbers_of_steps_another_backprop_and_one_setting():
    assert memory_rows([run(timesteps=2), run(timesteps=4)]) == []
    assert memory_rows([run(), run(**SLTT)]) == []
    assert memory_rows([run(timesteps=2), run(timesteps=4, batch_size=32, **SLTT)]) == []
    assert memory_rows([run(timesteps=2), run(timesteps=4, memory=None, **SLTT)]) == []
    assert len(memory_rows([run(timesteps=2), run(timesteps=4, **SLTT)])) == 2


def test_memory_of_other_environments_data_or_weights_is_a_table_of_its_own():
    pairs = [{}, {"record": {"environment": ENVIRONMENT | {"device": "cuda"}}}, IMP]
    records = [run(timesteps=steps, **axis, **more) for more in pairs for steps, axis in ((2, {}), (4, SLTT))]
    titles = [row.group.partition("fp32")[2] for row in memory_rows(records)]
    assert sorted(set(titles)) == [" · device cpu", " · device cuda", " · imp 25 %"] and len(titles) == 6


def test_search_rows_equal_hand_worked_numbers():
    table = {row.name: row for row in search_rows(axes_rows(three_axes()))}
    assert list(table) == ["full · bptt · imp 25 %", "full · bptt · imp 25 % early-time", "full · bptt · eb 50 %",
                           "sadp 50 % · sltt-k K=2 · imp 25 %"]  # fmt: skip
    early, eb = table["full · bptt · imp 25 % early-time"], table["full · bptt · eb 50 %"]
    # 60 s of 160 s, 60 s of 100 s without early time, with 2 of 4 steps
    expected = {"search_seconds_mean": 63.0, "search_share_mean": 60 / 160, "early_time_ratio_mean": 0.6,
                "search_timesteps_mean": 2.0, "search_epochs_mean": 20.0, "rounds_mean": 5.0, "n_early_time": 2}  # fmt: skip
    assert {name: early.columns()[name] for name in expected} == pytest.approx(expected)
    assert early.search_seconds.high == pytest.approx(63 + 6 * TWO_SEEDS)
    assert (eb.n_converged, eb.n_told, eb.rounds.n, early.n_told) == (1, 2, 0, 0)
    shown = render(three_axes(), [], "markdown")
    line = "| full · bptt · imp 25 % early-time | 2 of 4 | 5 | 20 | 63.0 ±38.1<br>n = 2 | 38 ±0 | – | 0.60<br>[0.60, 0.60] |"
    assert line in shown and "| 1 of 2 | – |" in shown


def test_early_time_is_paired_by_seed_and_environment():
    elsewhere = {"record": {"environment": ENVIRONMENT | {"torch": "9"}}}
    records = [run(seed=0, search=100.0, **IMP), run(seed=1, search=10.0, **elsewhere, **IMP)]
    records += [run(seed=seed, search=50.0, **EARLY) for seed in (0, 1, 2)]
    [row] = [row for row in search_rows(axes_rows(records)) if row.settings["early_time"]]
    assert (row.n, row.early_time_ratio.n, row.early_time_ratio.mean) == (3, 1, 0.5)


def test_connections_that_nothing_searched_for_are_in_no_table_of_searches():
    pq = run(record={"ticket": {"rewire_every": 1, "density": 0.4, "seconds": 0.01, "visits": 0}}, **PQ)
    assert search_rows(axes_rows([run(), pq])) == []


def test_json_is_an_object_of_all_tables_where_there_are_further_ones():
    data = json.loads(render(everything(), [], "json"))
    assert list(data) == ["rows", "axes", "memory", "search", "remarks"]
    assert data["axes"] == [row.columns() for row in axes_rows(everything())]
    assert not json.loads(render([run(), run("sadp", 0.5)], [], "json"))["axes"]


def test_order_of_the_records_changes_nothing_and_tables_fit_the_terminal():
    for format in ("text", "markdown", "latex", "csv", "json"):
        assert render(everything(), [], format) == render(everything()[::-1], [], format)
    for width in (60, 100):
        lines = [line for line in render(everything(), width=width).splitlines() if "make it" not in line]
        assert max(map(len, lines)) <= width


def test_text_states_which_speedup_was_measured_and_which_was_not():
    shown = " ".join(render(everything(), width=300).split())
    assert "Speed-up, theoretical: counted, not measured." in shown and "Dense hardware does not reward sparse" in shown
    assert "45 nm estimate" in shown and shown.count("Speed-up, measured:") == 1


def test_memory_figure_holds_the_rows_points_and_starts_at_zero():
    table = memory_rows(over_time())
    [axes] = memory_figure(table).axes
    drawn = lines_of(axes)
    assert drawn["bptt"] == near([(2, 50.5), (4, 100.5), (8, 200.5)])
    assert drawn["sltt"] == near([(2, 30.5), (4, 30.5), (8, 30.5)])
    assert axes.get_ylim()[0] == 0 and list(axes.get_xticks()) == [2, 4, 8] and len(bars_of(axes)) == 9
    looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines}
    named = [looks[name] for name in ("bptt", "sltt", "sltt-k K=1")]
    assert len({color for color, _ in named}) == len({marker for _, marker in named}) == 3


def test_memory_figure_is_written_beside_the_others(tmp_path):
    written = plots.draw(over_time(), tmp_path, formats=("png", "svg"))
    assert [path.name for path in written] == [
        f"digits-cnn-1000-examples-10-epochs-fp32-memory.{end}" for end in ("png", "svg")
    ]
    assert written[0].read_bytes().startswith(b"\x89PNG")


@typing.no_type_check
def test_page_has_the_sections_and_each_table_sorts_by_unrounded_numbers():
    records = everything()
    top, found = tree(render(records, [], "html")), Contents(records)
    ids = [node.attributes["id"] for node in top.all("section") if "id" in node.attributes]
    assert [name for name in ids if name in ("axes", "memory", "search")] == ["axes", "memory", "search"]
    sections = {name: top.all("section", id=name)[0] for name in ("axes", "memory", "search")}
    timed = [line for table in sections["axes"].all("table")[::2] for line in table.all("tbody")[0].all("tr")]
    for line, row in zip(timed, found.axes, strict=True):
        result = [cell.attributes.get("data-value") for cell in line.parts]
        names = ("accuracy_mean", "seconds_mean", "search_seconds_mean", "speedup_mean", "speedup_without_search_mean",
                 "theoretical_speedup_mean", "product_mean", "kept_share_mean")  # fmt: skip
        means = [row.columns()[name] for name in names]
        assert result == [row.name, *(None if mean is None else repr(mean) for mean in means)]
    assert sections["memory"].all("img") and len(sections["search"].all("tbody")[0].all("tr")) == len(found.search)
    assert "Time axis" in top.all("dl", class_="facts")[0].text and "not measured" in sections["axes"].text
    links = [node.attributes["href"] for node in top.all("a")]
    assert {link.removeprefix("#") for link in links} <= {n.attributes["id"] for n in top.all() if "id" in n.attributes}
    [part] = [node for node in top.all("details") if node.attributes.get("id") == f"run-{run(seed=0, **EB).spec.key}"]
    assert "search: converged" in part.text and "training memory" in part.text and "connections left" in part.text


def test_what_a_ticket_holds_may_be_anything():
    odd = {"seconds": 1e99, "search_epochs": "<b>", "converged": [1, {"x": None}], "<script>": "<script>"}
    ticket = {"seconds": 2.0, "search_epochs": 3, "search_timesteps": None, "rounds": True, "converged": "yes"}
    records = [run(), run(record={"ticket": odd, "firing_rate": ["x"]}, **IMP), run(record={"ticket": ticket}, **EB)]
    for format in ("text", "markdown", "latex", "csv", "json", "html"):
        assert render(records, [], format)
    assert len(tree(render(records, [], "html")).all("script")) == 1
