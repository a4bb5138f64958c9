"""Evaluation: predictions, metrics, robustness, out-of-distribution detection, intervals."""
