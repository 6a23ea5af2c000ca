"""The commands: each parses, calls and prints. What imports torch is imported within, so that help and reports feel
instant."""
