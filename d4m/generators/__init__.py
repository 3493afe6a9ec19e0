"""Latent diffusion models: compact ones trained here, and pretrained ones of the diffusers library."""
