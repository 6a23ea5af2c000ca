"""Statistics of the digits, for tests that normalise by hand."""

SCALE, MEAN, STD = 16, 0.3054, 0.3761
