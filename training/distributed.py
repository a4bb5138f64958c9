"""Distributed data-parallel training: several processes, started by torchrun, fit one network.

Each process has a *rank* and computes its shard of every batch. Random numbers for a rank's own
images come from its own generator; for what all ranks must agree on, all have the same generator.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")


class LostRankError(Exception):
    """Another rank has died."""


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: Its rank, from 0.
        size: Number of processes.
        local_rank: Its rank on this machine.
        local_size: Number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def shard(self, values: Tensor) -> Tensor:
        """This rank's shard of values that all ranks have; sizes differ by one at most."""
        return torch.tensor_split(values, self.size)[self.rank]

    def shard_size(self, n: int) -> int:
        """Size of this rank's shard of `n` values."""
        return (n + self.size - 1 - self.rank) // self.size

    def mean_weight(self, own: int, n: int) -> float:
        """Weight of this rank's mean over `own` of `n` values in the mean over all ranks."""
        return 1.0 if self.size == 1 or n == 0 else self.size * own / n

    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, in order; waits for the other ranks."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all_gather_object fills every entry

    def all_gather_rows(self, rows: Tensor, n: int) -> Tensor:
        """The rows of all ranks, concatenated.

        Args:
            rows: This rank's rows, (`shard_size(n)`, K).
            n: Number of rows of all ranks.
        """
        if self.size == 1:
            return rows
        largest = -(-n // self.size)
        padded = rows.new_zeros(largest, rows.shape[1])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(gathered, padded)
        sizes = (World(rank, self.size).shard_size(n) for rank in range(self.size))
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    def broadcast(self, value: T) -> T:
        """The main process's value."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def seed(self, *parts: int) -> int:
        """A seed for this rank, derived from numbers that all ranks share."""
        words = np.random.SeedSequence((*parts, self.rank)).generate_state(2)
        return int(words[0]) << 31 | int(words[1]) >> 1

    def mean(self, rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """The elementwise mean over all ranks of arrays of one shape."""
        mean: NDArray[np.float64] = np.mean(self.all_gather(np.asarray(rows, np.float64)), axis=0)
        return mean


SINGLE_PROCESS = World()
"""The world of a process that trains alone."""

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def world_from_environment() -> World:
    """The world that torchrun describes; `SINGLE_PROCESS` without torchrun.

    Raises:
        ValueError: If variables are missing, as under cluster schedulers.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return SINGLE_PROCESS
    missing = [name for name in _VARIABLES if not os.environ.get(name, "").isdecimal()]
    if missing:
        raise ValueError(
            f"the environment has WORLD_SIZE={os.environ['WORLD_SIZE']}, but no number in "
            f"{', '.join(missing)}: start several ranks by torchrun, or one with WORLD_SIZE unset"
        )
    return World(*(int(os.environ[name]) for name in _VARIABLES))


@contextmanager
def process_group(world: World, device: torch.device) -> Iterator[None]:
    """Initialise PyTorch's default process group, and destroy it at the end.

    Args:
        world: This process among the others.
        device: Its device; each rank on a GPU needs its own.

    Raises:
        LostRankError: If another rank dies.
    """
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # After a restart torchrun's store still has the lost ranks' addresses, so each attempt
    # gets its own prefix.
    store, rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"attempt-{attempt}", store),
        rank=rank,
        world_size=size,
    )
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower():
            raise LostRankError from error
        raise
    finally:
        # DistributedDataParallel refers to the group in reference cycles. If they outlive the
        # group's threads at interpreter exit, the process aborts.
        gc.collect()
        torch.distributed.destroy_process_group()
