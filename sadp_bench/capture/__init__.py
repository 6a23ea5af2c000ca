"""Hooks and formulas for activations, errors, squared norms and synaptic operations of a network."""
