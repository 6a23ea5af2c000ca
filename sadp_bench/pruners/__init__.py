"""SADP and the reference. `PRUNERS` maps a method's name to its class; `baselines` holds the methods for comparison."""

PRUNERS = {
    "full": "sadp_bench.pruners.full:Full",
    "sadp": "sadp_bench.pruners.sadp:SADP",
}
