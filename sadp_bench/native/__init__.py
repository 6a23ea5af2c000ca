"""The C core: the block of norm, pool and neuron, and the convolution of spikes. It is optional."""
