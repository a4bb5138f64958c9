"""Draws: the same for every engine and every number of them, and from the stated distribution."""

import numpy as np
import pytest
import torch

from model import Posterior
from model.architecture import DIGIT_CNN
from model.engines.engine import make_engine
from tests.support.checkpoints import TINY, tiny_posterior


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
    assert posterior.digest() != tiny_posterior(DIGIT_CNN).digest()


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1", True])
def test_a_seed_that_is_none_is_rejected(seed: object) -> None:
    with pytest.raises(ValueError, match="seed"):
        Posterior(TINY, {}, {}, seed=seed)  # type: ignore[arg-type]
