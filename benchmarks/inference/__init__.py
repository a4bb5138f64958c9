"""Benchmarks of inference: prediction, preprocessing and runtimes, without HTTP."""
