"""Distributed training, as far as one process can check it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model import BayesianCNN
from tests.support.distributed_job import CONFIG, ImageNoiseCNN, make_fitter
from tests.support.fitting import TINY_WITH_OUTLIERS, generator, random_data, random_images
from training import run
from training.data.parallel import parallel_map
from training.distributed import SINGLE_PROCESS, World, world_from_environment
from training.fitting.objective import Objective
from training.fitting.trainer import FitConfig


def gradients(world: World) -> dict[str, Tensor]:
    """The gradient of one rank's objective, of its shards of 17 digits and 7 outliers."""
    network = ImageNoiseCNN(TINY_WITH_OUTLIERS, generator=generator(3))
    objective = Objective(network, beta=0.7, outlier_weight=0.3, n_train=51)
    images, labels = (world.shard(values) for values in random_data(17))
    outliers = world.shard(random_images(7, 5))
    terms = objective(
        torch.cat([images, outliers]),
        labels,
        generator(),
        world.mean_weight(len(images), 17),
        world.mean_weight(len(outliers), 7),
    )
    terms.loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [2, 3])
def test_the_mean_gradient_of_all_ranks_is_that_of_one_process(size: int) -> None:
    expected = gradients(SINGLE_PROCESS)
    by_rank = [gradients(World(rank, size)) for rank in range(size)]
    assert len(expected) == 2 * len(TINY_WITH_OUTLIERS.parameter_shapes())
    for name, gradient in expected.items():
        mean = torch.stack([found[name] for found in by_rank]).mean(dim=0)
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def test_the_kl_term_weighs_in_that_gradient() -> None:
    """Guards the test above: were the KL term light, counting it twice would go unseen."""
    network = BayesianCNN(TINY_WITH_OUTLIERS, generator=generator(3))
    (0.7 * network.kl_divergence() / 51).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        if "weight" in name:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-3


@pytest.mark.parametrize(("n", "size"), [(17, 2), (8, 3), (5, 5), (3, 4)])
def test_shards_are_disjoint_and_complete(n: int, size: int) -> None:
    worlds = [World(rank, size) for rank in range(size)]
    shards = [world.shard(torch.arange(n)) for world in worlds]
    assert torch.cat(shards).tolist() == list(range(n))
    assert [len(shard) for shard in shards] == [world.shard_size(n) for world in worlds]
    # The weights of the ranks' means, averaged over the ranks, count every image once.
    pairs = zip(worlds, shards, strict=True)
    assert sum(world.mean_weight(len(shard), n) for world, shard in pairs) / size == pytest.approx(
        1
    )


def test_seeds_differ_by_rank_and_by_their_parts() -> None:
    seeds = {
        World(rank, 4).seed(seed, epoch) for rank in range(4) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert World(1, 4).seed(0, 1) == World(1, 4).seed(0, 1)


@pytest.mark.parametrize("config", [replace(CONFIG, batch_size=50), replace(CONFIG, non_digits=3)])
def test_more_ranks_than_images_in_a_batch_are_refused(config: FitConfig) -> None:
    with pytest.raises(ValueError, match="too many for the last batch"):
        make_fitter(BayesianCNN(TINY_WITH_OUTLIERS), World(0, 4), config)


def test_a_single_process_does_all_the_work() -> None:
    assert SINGLE_PROCESS.shard(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert SINGLE_PROCESS.all_gather("own") == ["own"]
    assert SINGLE_PROCESS.broadcast("own") == "own"
    assert parallel_map(_doubled, [1, 2, 3], "doubling") == [2, 4, 6]


def test_results_of_all_ranks_come_in_the_order_of_the_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second_rank = [4, 8]  # of the second and the fourth task
    monkeypatch.setattr(World, "all_gather", lambda _, own: [own, second_rank])
    found = parallel_map(_doubled, [1, 2, 3, 4, 5], "doubling", world=World(0, 2))
    assert found == [2, 4, 6, 8, 10]


def _doubled(value: int) -> int:
    return 2 * value


def test_half_an_environment_of_torchrun_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert world_from_environment() == SINGLE_PROCESS
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run.main(["--dataset", "digits"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "WORLD_SIZE=2" in line
    assert "LOCAL_RANK, LOCAL_WORLD_SIZE: start several ranks by torchrun" in line
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="no number in LOCAL_WORLD_SIZE:"):
        world_from_environment()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert world_from_environment() == World(0, 2, 0, 2)
