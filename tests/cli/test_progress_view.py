"""The progress of a run on a terminal of 80 columns, and the title of a speed measurement."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from sadp_bench.cli.run_view import Bar
from sadp_bench.cli.speed_view import speed_table

ROW = {"epoch": 2, "kept": 700, "seconds": 1.0, "train_loss": 0.8123, "test_accuracy": 0.712}


def terminal(columns: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=columns, color_system=None)


def line(bar: Bar) -> str:
    """Returns the bar as the terminal shows it."""
    assert bar.bar is not None
    console = terminal(bar.console.width)
    console.print(bar.bar.get_renderable())
    text = console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]
    assert "\n" not in text and len(text) <= bar.console.width, text
    return text


def bar_columns(text: str, title: str) -> int:
    """Returns the columns between the title, which may be cut, and the epoch, without the spaces beside them."""
    shown = text.partition("…")[0] + "…" if "…" in text else title
    assert text.startswith(shown)
    return text.index("epoch") - len(shown) - 2


@pytest.mark.parametrize("title", ["sadp 0.3", "importance-sampling 0.75 memory=0.95"])
def test_the_bar_keeps_10_columns_and_its_time_left_beside_an_accuracy(title: str) -> None:
    bar = Bar(terminal(80))
    bar.start(title, 14000, 20)
    bar.advance(2100)
    bar.epoch(ROW, 1000)
    text = line(bar)
    bar.stop()
    assert bar_columns(text, title) >= 10 and "━" in text, text
    assert re.search(r"(\d:\d\d:\d\d|-:--:--)$", text), text
    assert "epoch 3/20" in text and "accuracy 71.20 %" in text and title[:8] in text, text


def test_a_wide_terminal_has_all_numbers_and_a_longer_bar() -> None:
    bar = Bar(terminal(120))
    bar.start("sadp 0.3", 14000, 20)
    bar.advance(2100)
    bar.epoch(ROW, 1000)
    text = line(bar)
    bar.stop()
    assert all(part in text for part in ("kept 70.0 %", "loss 0.812", "images/s", "accuracy 71.20 %")), text
    assert bar_columns(text, "sadp 0.3") > 10, text


def test_the_bar_of_a_measurement_follows_its_rounds() -> None:
    """A method may show fewer or more visits than expected."""
    bar = Bar(terminal(80))
    bar.start("speed", 10, 31)
    for number in range(1, 4):
        bar.advance(500)
        bar.round(f"round {number}/10", number / 10)
        assert bar.bar is not None and bar.bar.tasks[0].percentage == pytest.approx(10 * number)
    assert "round 3/10" in line(bar)
    bar.stop()


def test_the_title_of_a_speed_measurement_stands_above_its_table() -> None:
    row = {"method": "sadp", "ratio": 0.5, "speedup": 1.9, "ceiling": 2.0, "efficiency": 0.95}
    limits = {"efficiency_low": 0.94, "efficiency_high": 0.96}
    noise = {"median": 1.0, "low": 0.99, "high": 1.01}
    facts = {"dataset": "cifar10", "backbone": "resnet18", "train_examples": 10000, "batch_size": 128, "device": "cpu"}
    console = terminal(80)
    console.print(speed_table({"rows": [row | limits], "noise_floor": noise, "threads": 16, "rounds": 30, **facts}))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    title = "cifar10 · resnet18 · 10,000 examples · batch 128 · cpu, 16 threads · 30 rounds"
    assert lines[0].strip() == title and lines[1].strip() == ""
    assert all(len(text) <= 80 for text in lines)
