"""Specs and records of runs, their store, and all numbers derived from records. It imports no torch."""
