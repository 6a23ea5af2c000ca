"""The training loop and its parts: data, step, backpropagation, evaluation, checkpoints, scoring before training."""

# Name on the command line -> class that computes a batch's gradient.
BACKPROPS = {
    "bptt": "sadp_bench.training.backprop:BPTT",
    "sltt": "sadp_bench.training.backprop:SLTT",
    "sltt-k": "sadp_bench.training.backprop:SLTTK",
    "local": "sadp_bench.training.local:Local",
}
