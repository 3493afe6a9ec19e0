"""The distilled data set as the outside world reads it: files, a loader, uploads."""
