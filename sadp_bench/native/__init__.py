"""The C core: the fused block of batch norm, pool and neuron. It is optional, and without a header of torch or Python."""
