"""What a run is and what it leaves: its spec, its record, the store, and all figures derived from records. Without torch."""
