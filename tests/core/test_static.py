"""Classes read from their source text, against the same classes imported."""

from __future__ import annotations

import re

import pytest

from sadp_bench.backbones.spiking import NeuronSettings
from sadp_bench.cli.detail import NEURON
from sadp_bench.core import registry, static
from sadp_bench.sparsity import SPARSITIES
from sadp_bench.training import BACKPROPS

TABLES = {kind: registry.table(kind) for kind in registry.GROUPS} | {"sparsity": SPARSITIES, "backprop": BACKPROPS}


@pytest.mark.parametrize("kind", TABLES)
def test_settings_and_defaults_are_those_of_the_imported_class_and_each_has_a_meaning(kind: str) -> None:
    for name, path in TABLES[kind].items():
        cls, read = registry.load(path), static.settings(path)
        expected = {of: default for of, (_, default) in registry.options(cls).items()}
        assert {of.name: of.default for of in read} == expected, name
        unexplained = [of.name for of in read if not of.meaning or "See " in of.meaning]
        assert not unexplained, (name, unexplained)


def test_the_settings_of_the_neuron_are_its_fields() -> None:
    assert NeuronSettings(**{of.name: of.default for of in static.fields(NEURON)}) == NeuronSettings()
    assert all(of.meaning for of in static.fields(NEURON))


def test_the_bibtex_of_a_method_agrees_with_its_source() -> None:
    """Both name the paper by hand: year, title, first author and arXiv number must be the same."""
    for name, path in registry.table("method").items():
        [entry] = registry.described({name: path})
        bibtex = static.attribute(path, "bibtex") or ""
        assert bibtex == registry.load(path).bibtex
        if entry.kind == "reference" or name == "subset":
            assert not bibtex, name
            continue
        found = re.findall(r"(?<!book)title = {(.*?)},\n", bibtex, re.DOTALL)
        titles = [re.sub(r"[{}\\]", "", " ".join(title.split())) for title in found]
        quoted = re.findall(r'"([^"]+)"', entry.source)
        assert len(titles) == len(quoted) >= 1, name
        assert all(of.startswith(short) for of, short in zip(titles, quoted, strict=True)), name
        for field in ("year", "eprint"):
            for value in re.findall(rf"{field} = {{(.*)}}", bibtex):
                assert value in entry.source, (name, value)
        authors = re.findall(r"author = {(\w+)", bibtex)
        assert len(authors) == len(titles) and all(author in entry.source for author in authors), name
        assert bibtex.count("{") == bibtex.count("}"), name
