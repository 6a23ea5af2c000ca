"""SADP and the reference. `PRUNERS` maps a method's name to its class. The other methods are in `baselines`."""

PRUNERS = {
    "full": "sadp_bench.pruners.full:Full",
    "sadp": "sadp_bench.pruners.sadp:SADP",
}
