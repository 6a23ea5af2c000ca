"""A spec as one flat table, and names made of what differs among runs."""

from sadp_bench.records.naming import differing, method_labels, run_names
from tests.example_records import make_spec


def test_a_flat_table_holds_all_of_a_spec():
    spec = make_spec("sadp", 0.3, 4, method_options={"p": 1}, sparsity="pq", density=0.5, sparsity_options={"p": 0.25})
    flat = spec.flat()
    assert (flat["method.p"], flat["sparsity.p"], flat["backbone.width"], flat["seed"]) == (1, 0.25, 32, 4)
    assert (
        spec.any_method()
        == make_spec("full", 0.7, 2, sparsity="pq", density=0.5, sparsity_options={"p": 0.25}).any_method()
    )


def test_a_missing_setting_differs_from_every_value():
    assert differing([{"a": 1, "b": None}, {"a": 1}]) == {"b"}
    assert differing([{"a": 1}, {"a": 1.5}, {"a": 1}]) == {"a"} and differing([{"a": 1}]) == differing([]) == set()


def test_names_contain_what_differs_among_the_runs_of_a_method_and_ratio():
    specs = [
        make_spec(),
        make_spec("sadp", 0.3, method_options={"smoothing": 0.1}),
        make_spec("sadp", 0.3, seed=1, method_options={"smoothing": 0.2}),
        make_spec("random", 0.3, method_options={"fresh": True}),
    ]
    names = ["full 0", "sadp 0.3 seed=0 smoothing=0.1", "sadp 0.3 seed=1 smoothing=0.2", "random 0.3"]
    assert run_names(specs) == {spec.key: name for spec, name in zip(specs, names, strict=True)}
    labels = ["full", "sadp (smoothing=0.1)", "sadp (smoothing=0.2)", "random"]
    assert method_labels(specs) == {spec.key: label for spec, label in zip(specs, labels, strict=True)}
