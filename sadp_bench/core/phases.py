"""The phases of a run. A record has the seconds of each."""

CHARGED_PHASES = ("prepare", "select", "train")
PHASES = (*CHARGED_PHASES, "evaluate")
