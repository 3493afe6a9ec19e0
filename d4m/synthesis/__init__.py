"""From prototypes to images (D4M, section 3.3)."""
