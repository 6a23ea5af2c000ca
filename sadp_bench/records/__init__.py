"""Specs and records of runs, the store that holds them, and all numbers derived from records. Without torch."""
