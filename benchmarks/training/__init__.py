"""Benchmarks of training: the cost of a step, alone and on several processes."""
