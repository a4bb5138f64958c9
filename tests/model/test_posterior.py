"""Draws: the same for every engine and every number of them, and from the stated distribution."""

import numpy as np
import pytest
import torch

from model import ModelConfig, Posterior, load, open_bytes
from model.engine import make_engine
from tests.conftest import ROOT, TINY, tiny_posterior


def test_the_first_draws_are_the_same_however_many_are_made() -> None:
    posterior = tiny_posterior()
    few, many = posterior.stack(3), posterior.stack(8)
    for name, values in few.items():
        assert np.array_equal(values, many[name][:3])
        assert np.array_equal(values[2], posterior.draw(2)[name])


def test_draws_differ_from_each_other_and_between_seeds() -> None:
    posterior, other = tiny_posterior(), tiny_posterior()
    other = Posterior(other.config, other.mean, other.scale, seed=other.seed + 1)
    name = "dense1.weight"
    assert not np.array_equal(posterior.draw(0)[name], posterior.draw(1)[name])
    assert not np.array_equal(posterior.draw(0)[name], other.draw(0)[name])


def test_drawing_leaves_global_generators_alone() -> None:
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    tiny_posterior().stack(2)
    make_engine(tiny_posterior(), n_draws=2, device="cpu").logits(np.ones((1, 28, 28), np.uint8), 2)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_draws_have_the_posteriors_mean_and_scale() -> None:
    """n = 4,000 draws of each weight, within 5 standard errors; scales differ to show mix-ups."""
    posterior, n = tiny_posterior(), 4000
    for i, values in enumerate(posterior.scale.values()):
        values *= 1 + 0.5 * i  # noqa: PLW2901 - in place, on purpose
    for name, drawn in posterior.stack(n).items():
        mean, scale = posterior.mean[name], posterior.scale[name]
        assert (np.abs(drawn.mean(0) - mean) < 5 * scale / np.sqrt(n)).all(), name
        assert (np.abs(drawn.std(0) - scale) < 5 * scale / np.sqrt(2 * n)).all(), name


def test_the_noise_of_the_streams_is_what_it_has_always_been() -> None:
    """Pinned: other values would silently change every model's answers and their calibration."""
    posterior = Posterior(
        TINY,
        {n: np.zeros(s, np.float32) for n, s in TINY.parameter_shapes().items()},
        {n: np.ones(s, np.float32) for n, s in TINY.parameter_shapes().items()},
        seed=20260101,
    )
    assert posterior.draw(0)["conv1.weight"].ravel()[:3] == pytest.approx(PINNED_FIRST, abs=1e-6)
    assert posterior.draw(99)["dense2.bias"][:3] == pytest.approx(PINNED_LAST, abs=1e-6)


PINNED_FIRST = [-0.193039, 1.466814, 2.146746]
PINNED_LAST = [-1.039246, 0.178942, -0.367306]


def test_the_digest_depends_on_seed_and_architecture_but_not_on_the_weights() -> None:
    posterior = tiny_posterior()
    wider = tiny_posterior(scale=0.5)
    reseeded = Posterior(posterior.config, posterior.mean, posterior.scale, seed=4)
    assert posterior.digest() == wider.digest()
    assert posterior.digest() != reseeded.digest()
    assert posterior.digest() != tiny_posterior(ModelConfig()).digest()


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1", True])
def test_a_seed_that_is_none_is_refused(seed: object) -> None:
    with pytest.raises(ValueError, match="seed"):
        Posterior(TINY, {}, {}, seed=seed)  # type: ignore[arg-type]


def test_the_torch_engine_runs_the_very_networks_that_numpy_drew() -> None:
    posterior = tiny_posterior()
    engine = make_engine(posterior, n_draws=4, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    logits = engine.logits(images, 4)
    assert logits.shape == (4, 2, 10)
    expected = np.stack([network_in_numpy(posterior.draw(s), images) for s in range(4)])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def network_in_numpy(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """`TINY` by the definition of its operations."""
    x = images[:, None].astype(np.float64) / 255
    for layer in ("conv1", "conv2"):
        kernel, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        size = kernel.shape[-1]
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
        x = np.einsum("bihwkl,oikl->bohw", windows, kernel) + bias[:, None, None]
        x = np.maximum(x, 0)
        even = x.shape[-1] // 2 * 2
        x = x[:, :, :even, :even]
        x = x.reshape(*x.shape[:2], even // 2, 2, even // 2, 2).max(axis=(3, 5))
    x = x.reshape(len(x), -1)
    x = np.maximum(x @ weights["dense1.weight"].T + weights["dense1.bias"], 0)
    return np.asarray(x @ weights["dense2.weight"].T + weights["dense2.bias"])


def test_a_pictures_answer_does_not_depend_on_the_rest_of_the_batch() -> None:
    engine = make_engine(tiny_posterior(), n_draws=4, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    together = engine.logits(images, 4)
    for i in range(5):
        alone = engine.logits(images[i : i + 1], 4)
        np.testing.assert_allclose(together[:, i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_fewer_draws_are_a_prefix() -> None:
    engine = make_engine(tiny_posterior(), n_draws=4, device="cpu")
    images = np.full((1, 28, 28), 100, np.uint8)
    assert np.array_equal(engine.logits(images, 2), engine.logits(images, 4)[:2])


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    names = ("seven", "four-or-nine", "letter")
    pictures = [(ROOT / "docs" / "examples" / f"{n}.png").read_bytes() for n in names]
    images = np.stack([open_bytes(picture).pixels for picture in pictures])
    on_cpu, on_cuda = (load(device=d).probabilities(images) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(on_cuda.mean(0), on_cpu.mean(0), rtol=0, atol=1e-5)


def test_asking_for_cuda_without_one_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(RuntimeError, match="CUDA"):
        make_engine(tiny_posterior(), n_draws=2, device="cuda")
