"""D4M: dataset distillation by a disentangled diffusion model, as a library.

Nothing in here knows about Dagster; `d4m_assets` wires these stages into an asset graph.
"""
