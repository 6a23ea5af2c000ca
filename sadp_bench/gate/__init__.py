"""The gate of continuous integration: runs made now against reference records. docs/ci.md says what is compared, and why.

A floor above everything that trains: `rerun` and `timing` do, the other modules only read records.
"""
