"""Cores granted: the scheduler's affinity and the quotas of control groups, of both versions."""

import os
from pathlib import Path

import pytest

from model.system.cpu import granted_cpus

ALL = 64


@pytest.fixture(autouse=True)
def large_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of many cores, all of them usable."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(ALL)), raising=False)


def cores(tmp_path: Path, membership: str, files: dict[str, str]) -> int:
    mount = tmp_path / "cgroup"
    mount.mkdir()
    for name, text in files.items():
        file = mount / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (tmp_path / "membership").write_text(membership)
    return granted_cpus(tmp_path / "membership", mount)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", ALL), ("200000 100000", 2), ("150000 100000", 1), ("5000 100000", 1)],
)
def test_version_2_in_a_container(tmp_path: Path, quota: str, expected: int) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": quota}) == expected


def test_version_2_on_a_host_counts_the_groups_above(tmp_path: Path) -> None:
    files = {"a.slice/cpu.max": "300000 100000", "a.slice/b.service/cpu.max": "max 100000"}
    assert cores(tmp_path, "0::/a.slice/b.service\n", files) == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", ALL), ("400000", 4)])
def test_version_1_in_a_container_that_sees_its_group_as_the_root(
    tmp_path: Path, quota: str, expected: int
) -> None:
    membership = "5:cpuset:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n"
    files = {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000"}
    assert cores(tmp_path, membership, files) == expected


def test_a_tighter_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    assert cores(tmp_path, "0::/\n", {"cpu.max": "800000 100000"}) == 2


@pytest.mark.parametrize("quota", ["", "nonsense", "0 0", "100000"])
def test_what_cannot_be_read_bounds_nothing(tmp_path: Path, quota: str) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": quota}) == ALL


def test_without_control_groups_the_affinity_alone_counts(tmp_path: Path) -> None:
    assert granted_cpus(tmp_path / "absent", tmp_path / "absent") == ALL
