"""Memory, threads, descriptors and CPU time of a process, read from `/proc`."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holdings", "busy_cpus_s", "cpu_s", "holdings", "rss_kb"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Holdings:
    """What a process holds at one moment.

    Attributes:
        rss_kb: Resident memory.
        threads: How many threads it runs.
        descriptors: What its descriptors lead to, by number.
    """

    rss_kb: int
    threads: int
    descriptors: dict[int, str]


def holdings(pid: int) -> Holdings:
    """What a process holds now."""
    status = _status(pid)
    descriptors = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            descriptors[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
    return Holdings(int(status["VmRSS"].split()[0]), int(status["Threads"]), descriptors)


def rss_kb(pid: int) -> int:
    """Resident memory of a process."""
    return int(_status(pid)["VmRSS"].split()[0])


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, on any thread."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def busy_cpus_s() -> float:
    """CPU seconds that all processes have used of the CPUs that this process may use."""
    cpus = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    # user nice system idle iowait irq softirq steal
    used = [map(int, (*ticks[:3], *ticks[5:8])) for name, *ticks in lines if name in cpus]
    return sum(map(sum, used)) * _TICK_S


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
