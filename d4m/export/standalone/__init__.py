"""The parts of `distilled.py`, the one file that reads an export where d4m is not installed.

`d4m.export.one_file` joins them. They need torch, pillow and pyarrow only.
"""
