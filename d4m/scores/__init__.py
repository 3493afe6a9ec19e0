"""Measures of how good a distilled set is (D4M, section 4)."""
