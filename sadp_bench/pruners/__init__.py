"""SADP and the reference: name -> class. The methods SADP is compared with are in `baselines`."""

PRUNERS = {
    "full": "sadp_bench.pruners.full:Full",
    "sadp": "sadp_bench.pruners.sadp:SADP",
}
