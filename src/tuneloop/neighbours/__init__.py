"""Texts that are close to one another: near-duplicates and overlaps, for whole batches at once."""
