"""Texts that are close to one another: near-duplicates, overlaps, similar prompts."""
