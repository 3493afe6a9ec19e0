"""Recipe files: reading, checking and writing them."""
