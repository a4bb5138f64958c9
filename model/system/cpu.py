"""CPUs granted to this process: a container's quota counts, not the host's cores."""

import math
import os
from pathlib import Path

_CGROUP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def granted_cpus(membership: Path = _CGROUP, mount: Path = _MOUNT) -> int:
    """Number of CPUs that this process may keep busy, at least 1.

    The minimum of the scheduler's affinity and the CPU quotas of all its control groups. More
    threads than that would be throttled.

    Args:
        membership: The file that names this process's control groups.
        mount: Where control groups are mounted, version 1 or 2.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [_quota(folder) for folder in _folders(membership, mount)]
    return max(1, math.floor(min([float(usable or 1), *quotas])))


def _folders(membership: Path, mount: Path) -> list[Path]:
    """Folders of this process's CPU control groups and their ancestors.

    A container may see its own group mounted as the root. The host's path then leads nowhere below
    `mount`, and only the root itself is read.
    """
    folders = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / "cpu" if controllers else mount
        group = root / path.lstrip("/")
        folders += [f for f in (group, *group.parents) if f == root or root in f.parents]
    return folders


def _quota(folder: Path) -> float:
    """CPUs that one control group allows; infinity without a limit."""
    text = _read(folder / "cpu.max") or (
        f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    )
    try:
        quota, period = map(int, text.split())
    except ValueError:  # "max 100000", or no such file
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
