"""Shared by all benchmarks: command line, tables, JSON results, interleaved timing, test images."""
