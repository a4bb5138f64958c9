"""Benchmarks: the commands behind every claim about speed and size."""
