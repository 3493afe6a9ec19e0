"""Everything that can be known to be wrong with a recipe before its first unit is computed."""
