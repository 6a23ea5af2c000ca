"""Sweeps, which train many runs: the sweep file, the plan, the scheduler and its executors."""
