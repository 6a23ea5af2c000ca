"""A pruner in any training loop: sampler, recorder, loss weights, scores."""
