"""Benchmarks of preprocessing and inference, beside other libraries and runtimes."""
