"""The artifacts of a distillation: what each consists of, what its units depend on, how they are made.

Planning a stage loads neither torch nor a model; only computing a missing unit does.
"""
