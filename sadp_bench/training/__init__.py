"""The training loop and its parts: data, step, backpropagation, evaluation, checkpoints, scoring before training."""
