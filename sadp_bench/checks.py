"""The former public name of `sadp_bench.testing`."""

from sadp_bench.testing import *  # noqa: F403
