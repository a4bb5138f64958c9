"""Synthetic images: digits rendered as people send them, and outliers that are no digits."""
