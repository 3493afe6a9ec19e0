"""Images as arrays: pixel ranges, training sets in memory or on disk, and contact sheets."""
