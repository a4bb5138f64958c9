"""Baselines: deterministic network, MC dropout, deep ensemble."""
