"""Latents in groups, and clusters of points, for tests of prototypes."""

import numpy as np

from d4m.prototypes.clusters import fit_prototypes
from d4m.settings import PrototypeSettings

METHODS = ["kmeans", "minibatch_kmeans"]
ALL_METHODS = [*METHODS, "gaussian_mixture"]
SHAPE = (4, 2, 2)


def draw_latents(images, seed=0, groups=5):
    """Draw the latents of a class, in a few loose groups, as float16."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(groups, *SHAPE)) * 2
    noise = random.normal(size=(images, *SHAPE))
    return (centres[random.integers(0, groups, images)] + noise).astype(np.float16)


def as_points(latents):
    return latents.reshape(len(latents), -1).astype(np.float64)


def fit_latents(latents, seed=0, **settings_):
    return fit_prototypes(latents, PrototypeSettings(**settings_), seed=seed)


def line(*values):
    """Build latents of one number each."""
    return np.array(values, np.float16).reshape(-1, 1, 1, 1)
