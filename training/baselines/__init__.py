"""Baselines for comparison: deterministic network, temperature scaling, MC dropout, ensemble."""
