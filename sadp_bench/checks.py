"""The former name of `sadp_bench.testing`; imports from here keep working."""

from sadp_bench.testing import ContractBroken, check_pruner, check_selection

__all__ = ["ContractBroken", "check_pruner", "check_selection"]
