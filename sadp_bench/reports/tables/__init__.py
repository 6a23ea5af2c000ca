"""The tables of a report, one module each. A table is described once and read by every format."""
