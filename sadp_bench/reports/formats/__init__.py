"""The formats of a report, one module each. They lay out tables and compute nothing."""
