"""What the benchmarks share: tables, JSON results, interleaved timing, environments."""
