"""Sweeps, which train the runs of one file: the sweep file, the plan, the scheduler and its executors."""
