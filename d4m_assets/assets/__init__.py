"""One file per asset: its description, and the metadata that people see of it."""
