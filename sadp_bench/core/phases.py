"""The phases of a run, whose seconds are recorded apart."""

CHARGED_PHASES = ("prepare", "select", "train")
PHASES = (*CHARGED_PHASES, "evaluate")
