"""What a run would do, what there was, and where it came from."""
