"""Sweep files: from TOML to one table of fields for each run.

A file has a table `[common]` and one or more blocks `[[sweep]]`. Their keys are the fields of `Spec`, and `set`, the
table of settings. A block's keys replace those of common. The runs of a block are the product of its lists. With a table
`[search]`, trials choose some settings for every method and ratio (`sweeps.search`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sadp_bench.core.errors import BadInput
from sadp_bench.core.files import Unreadable, read_text
from sadp_bench.core.registry import GROUPS, nearest
from sadp_bench.datasets import expanded
from sadp_bench.records.fields import FIELD_KINDS, MAX_COUNT, PREFIXES
from sadp_bench.records.former import LATER
from sadp_bench.records.spec import Spec
from sadp_bench.sweeps.search import Search, search_of

Source = Path | Mapping[str, Any]  # a sweep's file, or its tables
NOT_KEYS = ("processes", *PREFIXES)  # torchrun sets `processes`; `set` contains the tables of options
FIELDS = {of.name: str(of.type) for of in dataclasses.fields(Spec) if of.name not in NOT_KEYS}
TABLES = ("common", "search", "sweep")
# Further tables of a claim file (`claims.claim_file`, `claims.recipe`).
CLAIM_TABLES = ("claim", "metric", "recipe")
# Fields of the other axes. The tables of several axes compare runs of equal settings, so a search does not serve them.
UNSEARCHED = {name: LATER[name] for name in ("backprop", "sparsity")}
MAX_RUNS = 100_000  # runs of one file
FROM = "from"  # key of a block: the run whose scores its runs train on
NOT_INHERITED = (
    "method",
    "ratio",
    "budget",
    "protocol",
    "set",
)  # fields of a run that the run of its scores does not inherit


class RequestedRun(NamedTuple):
    """One run of a sweep file.

    Attributes:
        where: The file and block, for messages.
        fields: The fields, as `runs.resolve` takes them.
        source: The run whose scores this run trains on, or the file of its record; None without scores.
    """

    where: str
    fields: dict[str, Any]
    source: RequestedRun | Path | None = None


def read_sweep(source: Source, *, allow_imports: bool = False) -> list[RequestedRun]:
    """Returns all runs of a sweep, in its order.

    Args:
        source: The file or its tables.
        allow_imports: Whether a name may be a `package.module:Class`, which imports a module and so runs its code.

    Raises:
        BadInput: The sweep is not valid. The message names the file and the block.
    """
    path, (common, blocks, search) = named(source), _tables(source)
    flat_common = flat_table(f"{path}, [common]", common)
    alone = isinstance(source, Mapping) and len(blocks) == 1
    names = [path] if alone else [f"{path}, [[sweep]] {number}" for number in range(1, len(blocks) + 1)]
    sources = {name: _source(name, block, search) for name, block in zip(names, blocks, strict=True)}
    merged = {
        name: flat_common | flat_table(name, _without_source(block)) for name, block in zip(names, blocks, strict=True)
    }
    for where, flat in merged.items():
        for name in ("method", "ratio"):
            if name not in flat:
                raise BadInput(f"{where} lacks {name}: write it there or in [common]")
        if search is not None:
            _check_searched(where, flat, search)
        if sources[where] is not None and (flat["method"] != ["subset"] or "set.file" in flat):
            raise BadInput(f'{where}: from gives scores to method = "subset", in place of set.file')
        for name in GROUPS:
            every = [*flat.get(name, ()), *(value for value in (_table(sources[where]).get(name),) if value)]
            codes = (value for value in every if ":" in value and not (name == "dataset" and expanded(value)[1]))
            if not allow_imports and (code := next(codes, None)):
                raise BadInput(
                    f"{where}: {name} '{code}' would import that module and so run its code; "
                    "--allow-imports lets it, if you trust the file"
                )
    total = sum(math.prod(map(len, flat.values())) for flat in merged.values())
    if total > MAX_RUNS:
        raise BadInput(f"{path} describes {total:,} runs; one sweep has at most {MAX_RUNS:,}: split the file")
    return [
        RequestedRun(where, fields, _source_of(where, fields, sources[where]))
        for where, flat in merged.items()
        for fields in _product(flat)
    ]


def _without_source(block: Any) -> Any:
    return {key: value for key, value in block.items() if key != FROM} if isinstance(block, dict) else block


def _source(where: str, block: Any, search: Search | None) -> dict[str, Any] | Path | None:
    """Returns the `from` of a block: the settings that differ in the run of the scores, or the file of its record."""
    if not isinstance(block, dict) or FROM not in block:
        return None
    given = block[FROM]
    if search is not None:
        raise BadInput(f"{where}: from is for files without [search]")
    if isinstance(given, str):
        return Path(given)
    flat = flat_table(f"{where}, from", given)
    if several := next((name for name, values in flat.items() if len(values) != 1), None):
        raise BadInput(f"{where}, from: {several} is a list, and from names one run; give one value")
    if "method" not in flat or "seed" in flat:
        raise BadInput(
            f"{where}: from names the method that makes the scores, such as from = {{method = 'sadp', ratio = 0.3}}; its "
            "seed is that of each run"
        )
    return next(_product(flat))


def _table(source: Any) -> Mapping[str, Any]:
    return source if isinstance(source, Mapping) else {}


def _source_of(
    where: str, fields: Mapping[str, Any], source: dict[str, Any] | Path | None
) -> RequestedRun | Path | None:
    """Returns the run whose scores a run takes: its fields are equal except for those in `from`.

    It does not inherit the method's settings, nor those of a network, sparsity or data set that `from` replaces.
    """
    if not isinstance(source, dict):
        return source
    replaced = {f"{name}." for name in ("backbone", "sparsity", "dataset") if name in source}
    kept = {
        name: value
        for name, value in fields["set"].items()
        if "." in name and not any(name.startswith(prefix) for prefix in replaced)
    }
    own = {name: value for name, value in fields.items() if name not in NOT_INHERITED}
    return RequestedRun(f"{where}, from", {**own, "ratio": 0.0, **source, "set": kept | source["set"]})


def read_search(source: Source) -> Search | None:
    """Returns the search of a sweep; None where it has none. Raises BadInput with the file's name."""
    return _tables(source)[2]


def read_tables(source: Source) -> Mapping[str, Any]:
    """Returns the tables of a sweep file or a claim file. Raises BadInput with the file's name."""
    data = source if isinstance(source, Mapping) else _parsed(source)
    for name in data:
        if name not in (*TABLES, *CLAIM_TABLES):
            raise BadInput(f"{named(source)}: unknown table '{name}'{nearest(name, TABLES)}")
    return data


def named(source: Source) -> str:
    """Returns the name of a sweep in messages."""
    return "the sweep" if isinstance(source, Mapping) else str(source)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except Unreadable as error:
        raise BadInput(f"{error}; name a sweep file, such as experiments/smoke.toml") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not TOML: {error}") from None


def _tables(source: Source) -> tuple[Any, list[Any], Search | None]:
    path, data = named(source), read_tables(source)
    blocks = data.get("sweep")
    if not isinstance(blocks, list) or not blocks:
        raise BadInput(f"{path} has no [[sweep]]: write such a block (double brackets) with methods, ratios and seeds")
    search = search_of(f"{path}, [search]", data["search"]) if "search" in data else None
    return data.get("common", {}), blocks, search


def _check_searched(where: str, flat: Mapping[str, list[Any]], search: Search) -> None:
    """Raises BadInput for a block that sets what the search chooses, or whose axis no search serves."""
    for name in (*search.ranges, "evaluate_on"):
        if name in flat:
            raise BadInput(f"{where}: {name} is what [search] sets; leave it out of the blocks and of [common]")
    for name, plain in UNSEARCHED.items():
        if other := next((value for value in flat.get(name, ()) if value != plain), None):
            raise BadInput(
                f"{where}: {name} = {other!r} beside [search], which serves the data axis alone ({name} = {plain!r}); write "
                "the values into a file without [search]"
            )


def flat_table(where: str, table: Any) -> dict[str, list[Any]]:
    """Returns a table's keys, each with its list of values. The keys of settings are "set.KEY"."""
    if not isinstance(table, dict):
        raise BadInput(f"{where} is not a table")
    flat: dict[str, list[Any]] = {}
    for given, value in table.items():
        name = given.replace("-", "_")
        if name != "set" and name not in FIELDS:
            raise BadInput(f"{where}: unknown key '{given}'{nearest(name, [*FIELDS, 'set'])}")
        for key, values in _settings(where, value) if name == "set" else [(name, value)]:
            if key in flat:
                raise BadInput(f"{where}: {key} is there twice")
            flat[key] = values if isinstance(values, list) else [values]
            if not flat[key]:
                raise BadInput(f"{where}: {key} is an empty list; leave it out to take the default")
            for each in flat[key]:
                _check_type(where, key, each)
    return flat


def _settings(where: str, table: Any) -> Iterator[tuple[str, Any]]:
    """Yields the keys of a `set` table with their values.

    An option of the network is a quoted key such as "backbone.width", or a key of the table `backbone`. The same holds for
    `sparsity` and `dataset`.
    """
    if not isinstance(table, dict):
        raise BadInput(f"{where}: set is a table, such as set.smoothing = 0.1, not {table!r}")
    for key, value in table.items():
        if isinstance(value, dict) and key in ("backbone", "sparsity", "dataset"):
            yield from ((f"set.{key}.{name}", option) for name, option in value.items())
        else:
            yield f"set.{key}", value


def _check_type(where: str, key: str, value: Any) -> None:
    kinds, wanted = ((str, int, float, bool), "a setting's value") if key not in FIELDS else FIELD_KINDS[FIELDS[key]]
    fits = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
    if not fits:
        raise BadInput(f"{where}: {key} is {wanted} or a list of such, not {str(value)[:60]!r}")
    if isinstance(value, int) and abs(value) > MAX_COUNT:
        raise BadInput(f"{where}: {key} is at most {MAX_COUNT:,}")


def _product(flat: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*flat.values()):
        run = dict(zip(flat, values, strict=True))
        settings = {key.removeprefix("set."): run.pop(key) for key in flat if key.startswith("set.")}
        yield {**run, "set": settings}
