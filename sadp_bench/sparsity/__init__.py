"""Which weights exist: name -> class."""

SPARSITIES = {
    "dense": "sadp_bench.masks:Sparsity",
    "imp": "sadp_bench.sparsity.iterative:IMP",
    "eb": "sadp_bench.sparsity.eb:EB",
    "pq": "sadp_bench.sparsity.pq:PQ",
}
