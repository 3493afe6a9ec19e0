"""The artifacts of a distillation: their units, what these depend on, how they are made.

Planning a stage loads neither torch nor a model; only computing a missing unit does.
"""
