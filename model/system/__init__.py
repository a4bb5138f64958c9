"""What the operating system grants and guarantees: CPUs, atomic file writes."""
