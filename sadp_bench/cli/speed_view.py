"""Shows a measurement of speed."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sadp_bench.core.text import count, interval


def speed_table(result: dict[str, Any]) -> Group:
    """Returns the table of a `speed` measurement."""
    noise = result["noise_floor"]
    title = (
        f"{result['dataset']} · {result['backbone']} · {result['train_examples']:,} examples · batch "
        f"{result['batch_size']} · {result['device']}, {count(result['threads'], 'thread')} · {result['rounds']} rounds"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("method", overflow="fold")
    for name in ("ratio", "training speed-up", "ceiling", "efficiency"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(
            row["method"],
            f"{row['ratio']:g}",
            f"{row['speedup']:.3f} x",
            f"{row['ceiling']:.3f} x",
            f"{row['efficiency']:.3f} {interval(row['efficiency_low'], row['efficiency_high'], 3)}".rstrip(),
        )
    limits = interval(noise["low"], noise["high"], 3)
    floor = f"noise floor: full data against itself {noise['median']:.3f} {limits}".rstrip()
    few = "; at least 6 rounds are needed for it" if noise["low"] is None else ""
    note = (
        f"median over rounds with its interval of about 95 %{few}; efficiency = training speed-up / ceiling\n"
        "ceiling: over the timed epochs, because a budget can keep more examples in some epochs"
    )
    return Group(Text(title, "bold"), "", table, "", Text(floor), Text(note, "dim"))
