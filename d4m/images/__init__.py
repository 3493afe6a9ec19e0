"""Images as arrays: pixels, sets of them, on disk, on a contact sheet."""
