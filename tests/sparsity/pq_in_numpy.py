"""The PQ index by the formula of its paper, in NumPy."""

from __future__ import annotations


def index_in_numpy(w, p, q):
    def norm(order):
        return (abs(w) ** order).sum() ** (1 / order)

    return 1 - len(w) ** (1 / q - 1 / p) * norm(p) / norm(q)
