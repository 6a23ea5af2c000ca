"""Claims of papers and their tests. Each claim is a TOML file in this folder, measured over seeds against a pass band."""
