"""The stages of `d4m` as Dagster assets."""

from d4m_assets.definitions import defs as defs
