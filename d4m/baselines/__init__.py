"""Rivals of the distilled images: coresets of real ones, mosaics, and images fitted otherwise."""
