"""From latents to prototypes (D4M, section 3.2)."""
