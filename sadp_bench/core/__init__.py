"""Parts that every other package may use: errors, names, random streams, processes, the clock, losses, text."""
