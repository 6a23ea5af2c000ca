"""The equation of the leaky integrate-and-fire neuron, which each kernel implements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LIFEquation:
    """h[t] = (1 - 1/tau) v[t-1] + gain x[t];  s[t] = h[t] >= threshold;  v[t] = h[t] after the reset.

    No gradient flows through the reset.

    Attributes:
        tau: Membrane time constant in steps, above 1.
        gain: Factor of the current: 1, or 1/tau where the input is decayed.
        threshold: The membrane value from which the neuron spikes.
        soft: Whether a reset subtracts the threshold; otherwise it sets the membrane to 0.
        surrogate: The spike's derivative: "atan" (alpha 2), "sigmoid" (alpha 4) or "triangle" (alpha 1).
    """

    tau: float
    gain: float
    threshold: float
    soft: bool
    surrogate: str
