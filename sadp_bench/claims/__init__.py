"""Claims of papers and how they are tested: each a TOML file beside this one, measured over seeds against a pass band."""
