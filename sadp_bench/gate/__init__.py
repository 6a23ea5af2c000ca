"""The gate of continuous integration: compares runs made now with reference records (see docs/ci.md).

Only `rerun` and `timing` train; the other modules read records.
"""
