"""What a network shows while it computes: activations, errors, squared norms, synaptic operations."""
