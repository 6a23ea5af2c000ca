"""The numbers of a spiking neuron that its fused kernels need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NeuronFacts:
    """A leaky integrate-and-fire neuron whose reset is outside of the graph.

    h[t] = (1 - 1/tau) v[t-1] + gain x[t];  s[t] = h[t] >= threshold;  v[t] = h[t] after the reset.

    Attributes:
        tau: Membrane time constant in steps, above 1.
        gain: Factor of the input: 1, or 1/tau where the input is decayed.
        threshold: Of the membrane, from which it spikes.
        soft: Whether the reset subtracts the threshold; otherwise it sets the membrane to 0.
        surrogate: The spike's derivative: "atan", "sigmoid" or "triangle".
    """

    tau: float
    gain: float
    threshold: float
    soft: bool
    surrogate: str
