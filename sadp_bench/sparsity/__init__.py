"""Sparsity, the weight axis: which weights exist. Name -> class."""

SPARSITIES = {
    "dense": "sadp_bench.sparsity.base:Sparsity",
    "imp": "sadp_bench.sparsity.imp:IMP",
    "eb": "sadp_bench.sparsity.eb:EB",
    "pq": "sadp_bench.sparsity.pq:PQ",
    "random": "sadp_bench.sparsity.random:Random",
    "channels": "sadp_bench.sparsity.channels:Channels",
    "fixed": "sadp_bench.sparsity.fixed:Fixed",
    "narrow": "sadp_bench.sparsity.narrow:Narrow",
}
