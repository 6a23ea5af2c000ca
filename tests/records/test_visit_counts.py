"""Each example's number of visits: counted by the loop, packed into a record."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core.errors import BadInput
from sadp_bench.records.record import Record
from sadp_bench.records.visit_counts import MAX_VISITS, pack, unpack
from tests.example_records import make_record, make_spec
from tests.small_runs import Chosen, small_bench


@given(st.lists(st.integers(0, MAX_VISITS), max_size=300))
def test_counts_come_back_as_they_were_packed(counts):
    assert unpack(pack(counts), len(counts)) == counts


def test_a_packing_is_short():
    generator = torch.Generator().manual_seed(0)
    counts = torch.binomial(torch.full((10_000,), 30.0), torch.tensor(0.5), generator=generator).int().tolist()
    assert len(pack(counts)) < 10_000
    assert len(pack([30] * 10_000)) < 100


def test_what_is_no_packing_of_so_many_counts_is_refused_in_one_line():
    for packed in ("", "no base64!", "AAAA", pack([1, 2, 3])[:-8], pack([1, 2]), pack([1] * 4)):
        with pytest.raises(BadInput, match="the record's visits"):
            unpack(packed, 3)
    with pytest.raises(BadInput, match="not those of 3 examples"):
        unpack(pack([0] * 10_000_000), 3)  # a bomb, which is not unpacked
    with pytest.raises(BadInput, match="more than can be read"):
        unpack(pack([1]), 2**63)


def test_the_loop_counts_every_visit_of_every_example():
    chosen = torch.tensor([3, 7, 120])
    bench = small_bench(Chosen(chosen), epochs=3)
    for epoch, _ in enumerate(bench.rows(), 1):
        counts = bench.state.visits_N
        assert counts.nonzero().flatten().tolist() == chosen.tolist()
        assert counts[chosen].tolist() == [epoch] * 3


@pytest.mark.parametrize(("method", "ratio"), [("full", 0.0), ("fewer-epochs", 0.5), ("random", 0.3), ("sadp", 0.5)])
def test_a_record_carries_the_visits_its_rows_count(method, ratio):
    bench = small_bench(method=method, ratio=ratio, epochs=4)
    record = bench.run()
    counts = torch.tensor(unpack(record.visits, record.num_examples))
    assert int(counts.sum()) == record.examples_seen == sum(row["kept"] for row in record.epochs)
    assert int(counts.max()) <= len(record.epochs)
    label_N = bench.material.train.label_N
    by_class = {str(c): float(counts[label_N == c].double().mean()) for c in range(10)}
    assert record.class_visits == pytest.approx(by_class)
    assert Record.from_json(record.to_json()) == record


def test_a_record_of_an_earlier_version_has_none():
    data = make_record(make_spec()).to_json()
    del data["visits"], data["class_visits"], data["class_accuracy"]
    del data["fitted_loss"], data["fitted_accuracy"], data["fitted_examples"]
    read = Record.from_json(data)
    assert read.visits is None and read.class_accuracy == {}
    assert read.fitted_loss is None and read.fitted_accuracy is None and read.fitted_examples == 0
