"""Gradients derived by hand in the NumPy notebooks equal autograd's."""

from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from torch.nn import functional

from model import gaussian_kl
from tests.support.paths import ROOT

SHAPES = {"W1": (12, 7), "b1": (7,), "W2": (7, 4), "b2": (4,)}
N = 50  # training images, for the weight of the KL term


def definitions(name: str) -> dict[str, Any]:
    """The functions defined in a notebook's cells with the tag `tested`."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if "tested" in cell.metadata.get("tags", [])]
    assert cells
    namespace: dict[str, Any] = {"np": np}
    for cell in cells:
        exec(cell.source, namespace)
    return namespace


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((9, 12)), rng.integers(0, 4, 9)


def values(seed: int, scale: float = 0.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(0, scale, shape) for key, shape in SHAPES.items()}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value, requires_grad=True) for key, value in arrays.items()}


def torch_nll(x: np.ndarray, y: np.ndarray, w: dict[str, torch.Tensor]) -> torch.Tensor:
    hidden = functional.relu(torch.from_numpy(x) @ w["W1"] + w["b1"])
    return functional.cross_entropy(hidden @ w["W2"] + w["b2"], torch.from_numpy(y))


def test_the_gradients_of_the_deterministic_network_are_those_of_autograd(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    arrays = values(1)
    loss, by_hand = definitions("mnist_nn")["gradients"](*batch, arrays)
    weights = tensors(arrays)
    expected = torch_nll(*batch, weights)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-12)
    for key, weight in weights.items():
        np.testing.assert_allclose(by_hand[key], weight.grad, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_gradients_of_the_bayesian_network_are_those_of_autograd(
    batch: tuple[np.ndarray, np.ndarray], beta: float
) -> None:
    defined = definitions("numpy_mnist_bnn")
    mu, lam, eps = values(1), values(2, 0.3), values(3, 1.0)
    lam = {key: value - 2 for key, value in lam.items()}
    loss, by_mu, by_lam = defined["elbo_gradients"](*batch, mu, lam, eps, s=0.3, beta=beta, n=N)

    mean, log_scale = tensors(mu), tensors(lam)
    drawn = {k: mean[k] + log_scale[k].exp() * torch.from_numpy(eps[k]) for k in SHAPES}
    nll = torch_nll(*batch, drawn)
    kl = torch.stack([gaussian_kl(mean[k], log_scale[k].exp(), 0.3) for k in SHAPES]).sum()
    (nll + beta * kl / N).backward()
    assert loss == pytest.approx(nll.item(), abs=1e-12)
    assert defined["kl_divergence"](mu, lam, 0.3) == pytest.approx(kl.item(), rel=1e-12)
    for key in SHAPES:
        np.testing.assert_allclose(by_mu[key], mean[key].grad, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(by_lam[key], log_scale[key].grad, rtol=1e-9, atol=1e-12)
