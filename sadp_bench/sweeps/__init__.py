"""Many runs: the sweep file, the plan, the scheduler and its executors."""
