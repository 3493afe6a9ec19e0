"""Say what a run would do, what there was before, where it came from, and whether it holds."""
