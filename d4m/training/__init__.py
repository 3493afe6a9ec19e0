"""Views, soft labels, losses and the training loop (D4M, section 3.4)."""
