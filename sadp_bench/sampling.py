"""The public name of the sampling functions. They are defined in `sadp_bench.pruners.sampling`."""

from sadp_bench.pruners.sampling import *  # noqa: F403
