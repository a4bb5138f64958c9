"""Benchmarks of training: cost per step, and time to an accuracy."""
