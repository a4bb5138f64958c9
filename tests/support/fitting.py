"""Fits of a network small enough to run in a test."""

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from model import BayesianCNN, ModelConfig
from tests.support.checkpoints import TINY
from training.fitting.trainer import FitConfig, Fitter, TrainingSet, new_network

TINY_WITH_OUTLIERS = replace(TINY, not_a_digit=True)
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=generator(seed))


def random_data(n: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels."""
    return random_images(n, 1), torch.randint(0, 10, (n,), generator=generator(2))


def fitter_of(
    model: ModelConfig, config: FitConfig, images: torch.Tensor, labels: torch.Tensor, **more: Any
) -> Fitter[BayesianCNN]:
    return Fitter(new_network(model, config), config, TrainingSet(images, labels, **more))


def tiny_fitter(n: int = 48, **options: object) -> Fitter[BayesianCNN]:
    """A fit of `TINY` on random data, without augmentation."""
    settings = {"epochs": 2, "batch_size": 16, "augmentation": None, **options}
    return fitter_of(TINY, FitConfig(**settings), *random_data(n))  # type: ignore[arg-type]


def check_objective(batch_size: int = 16) -> None:
    """Check that one step of gradient descent follows the gradient of NLL + β KL / N, KL summed."""
    torch.manual_seed(0)
    beta, step = 0.7, 1e-3
    fit = tiny_fitter(beta=beta, batch_size=batch_size, epochs=1)
    images, labels = random_data()
    network = BayesianCNN(TINY, generator=generator(0))
    network.load_state_dict(fit.network.state_dict())
    noise = fit._generator.clone_state()

    fit._optimizer = torch.optim.SGD(fit.network.parameters(), lr=step)  # type: ignore[assignment]
    fit._step(images[:batch_size], labels[:batch_size])

    logits = network.forward_local(images[:batch_size], noise)
    parameters = dict(network.named_parameters())
    prior = torch.distributions.Normal(0.0, TINY.prior_scale)
    kl = torch.zeros(())
    for name, mean in parameters.items():
        if name.endswith("mean"):
            scale = functional.softplus(parameters[name.replace("_mean", "_rho")])
            q = torch.distributions.Normal(mean, scale)
            kl = kl + torch.distributions.kl_divergence(q, prior).sum()
    loss = functional.cross_entropy(logits, labels[:batch_size]) + beta * kl / len(labels)
    loss.backward()
    for (name, moved), start in zip(
        fit.network.named_parameters(), network.parameters(), strict=True
    ):
        assert start.grad is not None
        torch.testing.assert_close(
            moved.detach(), start.detach() - step * start.grad, msg=lambda m, n=name: f"{n}: {m}"
        )
