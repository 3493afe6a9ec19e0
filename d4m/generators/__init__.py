"""Latent diffusion models: compact ones trained here, pretrained ones loaded."""
