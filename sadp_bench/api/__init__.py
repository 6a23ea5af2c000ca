"""The commands as functions, for notebooks and scripts. Each does what its command does, and leaves the same records."""
