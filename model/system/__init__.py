"""What the operating system provides: CPUs and atomic file writes."""

from model.system.atomic_write import write_atomically
from model.system.cpu import granted_cpus

__all__ = ["granted_cpus", "write_atomically"]
