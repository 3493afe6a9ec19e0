"""Who computes the missing units of a stage: this process, or the workers of Ray."""
