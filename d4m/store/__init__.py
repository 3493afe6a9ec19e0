"""The on-disk contract: write-once units, published last, checked whenever they are read."""
