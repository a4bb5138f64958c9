"""The fit: its objective, its optimum, its sampling of outliers, and its state."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from model import BayesianCNN, BayesianLinear
from model.engines.onnx_engine import OnnxEngine
from model.uncertainty import draw_probabilities
from tests.support.checkpoints import TINY, tiny_posterior
from tests.support.fitting import (
    TINY_WITH_OUTLIERS,
    check_objective,
    fitter_of,
    generator,
    random_data,
    random_images,
    tiny_fitter,
)
from training.baselines.networks import Members
from training.fitting.augment import Distortion
from training.fitting.trainer import (
    FitConfig,
    Fitter,
    Step,
    correct_prior_shift,
    learning_rate_factor,
)


@pytest.mark.parametrize("batch_size", [16, 48])
def test_the_objective_is_mean_nll_plus_beta_kl_over_n(batch_size: int) -> None:
    check_objective(batch_size)


def test_nll_and_kl_are_reported_apart_and_the_elbo_adds_them_with_beta_one() -> None:
    fit = tiny_fitter(beta=0.1)
    steps = list(fit.run_epoch())
    summary = fit.summarise(steps)
    assert summary.nll == pytest.approx(np.mean([step.nll for step in steps]))
    assert summary.kl == steps[-1].kl
    assert summary.not_a_digit_nll == 0
    assert summary.negative_elbo == pytest.approx(summary.nll + summary.kl / 48)


def outlier_fitter(n: int = 48, **options: object) -> Fitter[BayesianCNN]:
    settings = {"epochs": 1, "batch_size": 16, "augmentation": None, "non_digits": 8, **options}
    config = FitConfig(**settings)  # type: ignore[arg-type]
    return fitter_of(TINY_WITH_OUTLIERS, config, *random_data(n), outliers=random_images(12, 5))


def test_not_a_digit_is_one_more_outcome_with_its_own_weight() -> None:
    tau, step = 0.3, 1e-3
    fit = outlier_fitter(non_digit_weight=tau, beta=0.0)
    images, labels = random_data(16)
    chosen = torch.arange(2, 10)
    assert fit._outliers is not None
    others = fit._outliers[chosen]
    network = BayesianCNN(TINY_WITH_OUTLIERS, generator=generator(0))
    network.load_state_dict(fit.network.state_dict())
    noise = fit._generator.clone_state()

    fit._optimizer = torch.optim.SGD(fit.network.parameters(), lr=step)  # type: ignore[assignment]
    done = fit._step(images, labels, chosen)

    logits = network.forward_local(torch.cat([images, others]), noise)
    assert logits.shape == (24, 11)
    of_digits = functional.cross_entropy(logits[:16], labels)
    of_others = functional.cross_entropy(logits[16:], torch.full((8,), 10))
    (of_digits + tau * of_others).backward()
    assert done.nll + done.not_a_digit_nll == pytest.approx(
        (of_digits + tau * of_others).item(), rel=1e-5
    )
    assert done.nll == pytest.approx(
        functional.cross_entropy(logits[:16, :10], labels).item(), rel=1e-5
    )
    for moved, start in zip(fit.network.parameters(), network.parameters(), strict=True):
        expected = start.detach() - step * (0 if start.grad is None else start.grad)
        torch.testing.assert_close(moved.detach(), expected)


def test_hard_outliers_are_drawn_more_often_and_easy_ones_still_are() -> None:
    fit = outlier_fitter(non_digit_weight=1.0, hard_share=0.5, non_digits=4)
    fit._hardness[:] = 0.01
    fit._hardness[3] = 10.0
    rounds = 400
    drawn = [fit._draw_outliers() for _ in range(rounds)]
    counts = torch.bincount(torch.cat([c for c in drawn if c is not None]), minlength=12)
    # Two of four are drawn by hardness and without repetition: the hard one nearly every time
    # (10 in 10.11 first, and by the second place, if not), and another beside it.
    by_chance = rounds * 2 / 12
    assert counts[3] > 0.95 * rounds + by_chance / 2
    rest = counts[torch.arange(12) != 3].float()
    expected = by_chance + rounds / 11
    # 5 standard deviations of a count of 1,600 draws.
    assert (rest - expected).abs().max() < 5 * math.sqrt(expected)


def test_the_hardness_of_an_outlier_is_its_last_nll() -> None:
    fit = outlier_fitter(non_digit_weight=1.0, hard_share=0.5)
    unseen = math.log(11)
    assert fit._hardness.tolist() == pytest.approx([unseen] * 12)
    noise = fit._generator.clone_state()
    images, labels = random_data(16)
    chosen = torch.tensor([5, 1, 7])
    assert fit._outliers is not None
    shown = torch.cat([images, fit._outliers[chosen]])
    expected = -functional.log_softmax(fit.network.forward_local(shown, noise), dim=1)[16:, 10]
    fit._step(images, labels, chosen)
    torch.testing.assert_close(fit._hardness[chosen], expected.detach())
    others = [i for i in range(12) if i not in chosen]
    assert fit._hardness[others].tolist() == pytest.approx([unseen] * 9)


def test_without_a_hard_share_all_outliers_are_drawn_alike() -> None:
    fit = outlier_fitter(non_digit_weight=1.0, non_digits=6)
    fit._hardness[0] = 1e6
    counts = torch.zeros(12)
    for _ in range(200):
        chosen = fit._draw_outliers()
        assert chosen is not None
        counts += torch.bincount(chosen, minlength=12)
    assert (counts - 100).abs().max() < 5 * math.sqrt(100)


def test_prior_shift_moves_the_odds_of_not_a_digit_by_bayes_rule_and_nothing_else() -> None:
    config = FitConfig(
        epochs=1, non_digits=8, non_digit_weight=0.1, expected_non_digits=0.01, augmentation=None
    )
    weights = tiny_posterior(TINY_WITH_OUTLIERS).mean
    moved = correct_prior_shift(weights, TINY_WITH_OUTLIERS, config)
    x = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    before, after = (
        draw_probabilities(OnnxEngine(Members(TINY_WITH_OUTLIERS, [w]), n_draws=1).logits(x, 1), 10)
        for w in (weights, moved)
    )
    assert before.not_a_digit is not None
    assert after.not_a_digit is not None
    odds = [p / (1 - p) for p in (before.not_a_digit, after.not_a_digit)]
    np.testing.assert_allclose(odds[1], odds[0] / 10, rtol=1e-4)
    np.testing.assert_allclose(after.classes, before.classes, atol=1e-6)
    same = correct_prior_shift(
        weights, TINY_WITH_OUTLIERS, replace(config, expected_non_digits=None)
    )
    assert all(np.array_equal(same[name], weights[name]) for name in weights)
    assert (
        correct_prior_shift(tiny_posterior().mean, TINY, config).keys()
        == TINY.parameter_shapes().keys()
    )


def test_outliers_do_not_change_the_odds_between_classes() -> None:
    """The gradient of an outlier leaves the odds between any two classes."""
    fit = outlier_fitter(non_digit_weight=1.0)
    others = torch.rand(8, 1, 28, 28, generator=generator(6))
    logits = fit.network.forward_local(others, generator(1)).detach().requires_grad_()
    log_p = functional.log_softmax(logits, dim=1)
    log_p[:, 10].sum().backward()
    conditional = functional.softmax(logits.detach()[:, :10], dim=1)
    assert logits.grad is not None
    # The gradient of every class's output is the same share of its conditional probability.
    shares = logits.grad[:, :10] / conditional
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))


def test_the_outcome_not_a_digit_needs_outliers() -> None:
    settings = FitConfig(epochs=1, augmentation=None)
    with pytest.raises(ValueError, match="needs outliers"):
        fitter_of(TINY_WITH_OUTLIERS, settings, *random_data())
    with pytest.raises(ValueError, match="needs outliers"):
        fitter_of(TINY_WITH_OUTLIERS, settings, *random_data(), outliers=torch.rand(2, 1, 28, 28))


def test_without_beta_the_posterior_narrows_and_with_it_widens_towards_the_prior() -> None:
    def mean_scale(beta: float) -> float:
        fit = tiny_fitter(beta=beta, epochs=30, learning_rate=0.02)
        for _ in range(30):
            list(fit.run_epoch())
        scales = [
            s.mean() for layer in fit.network.layers().values() for s in layer.posterior_scale()
        ]
        return torch.stack(scales).mean().item()

    assert mean_scale(0.0) < 0.02 < mean_scale(20.0)


def test_the_mean_field_optimum_of_a_conjugate_linear_model() -> None:
    """y = X w + noise with known precision: the optimum is known in closed form.

    The exact posterior is Gaussian with precision matrix A = XᵀX/σ² + I/s²; the best mean-field
    Gaussian has its mean and the scales 1/√A_ii (Bishop 2006, equation 10.12 and following).
    """
    n, sigma, prior_scale = 40, 0.5, 0.8
    x = torch.randn(n, 3, generator=generator(1)) @ torch.tensor(
        [[1.0, 0.6, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.5]]
    )
    y = (
        x @ torch.tensor([[0.7], [-1.1], [0.4]])
        + 0.3
        + sigma * torch.randn(n, 1, generator=generator(2))
    )
    design = torch.cat([x, torch.ones(n, 1)], dim=1)
    precision = design.T @ design / sigma**2 + torch.eye(4) / prior_scale**2
    exact_mean = torch.linalg.solve(precision, design.T @ y / sigma**2).squeeze()
    best_scale = precision.diagonal().rsqrt()

    layer = BayesianLinear(3, 1, prior_scale=prior_scale, initial_scale=0.3, generator=generator(3))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    noise = generator(4)
    for _ in range(1000):
        residual = layer.forward_local(x, noise) - y
        nll = residual.square().sum() / (2 * sigma**2)
        optimizer.zero_grad()
        (nll + layer.kl_divergence()).backward()
        optimizer.step()
        schedule.step()
    mean, scale = layer.posterior_mean(), layer.posterior_scale()
    found_mean = torch.cat([mean.weight.squeeze(), mean.bias]).detach()
    found_scale = torch.cat([scale.weight.squeeze(), scale.bias]).detach()
    torch.testing.assert_close(found_mean, exact_mean, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found_scale, best_scale, atol=0.005, rtol=0.05)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    def weights(seed: int) -> torch.Tensor:
        fit = tiny_fitter(seed=seed, augmentation=Distortion())
        for _ in range(2):
            list(fit.run_epoch())
        return fit.network.layers()["dense1"].weight_mean.detach()

    assert torch.equal(weights(5), weights(5))
    assert not torch.equal(weights(5), weights(6))


def test_a_fit_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    list(tiny_fitter(augmentation=Distortion()).run_epoch())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_restored_fit_ends_with_the_same_bytes() -> None:
    whole = tiny_fitter(epochs=4, augmentation=Distortion())
    for _ in range(4):
        list(whole.run_epoch())
    first = tiny_fitter(epochs=4, augmentation=Distortion())
    for _ in range(2):
        list(first.run_epoch())
    second = tiny_fitter(epochs=4, seed=99, augmentation=Distortion())
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(2):
        list(second.run_epoch())
    assert second.epoch == 4
    for (name, a), b in zip(
        whole.network.named_parameters(), second.network.parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def marked(imitated: float, seed: int = 0) -> tuple[Fitter[BayesianCNN], list[torch.Tensor]]:
    """A fit whose images are 0 and whose renderings are 1, and the means of its batches."""
    images, labels = torch.zeros(400, 1, 28, 28), torch.zeros(400, dtype=torch.int64)
    config = FitConfig(epochs=1, batch_size=100, augmentation=None, imitated=imitated, seed=seed)
    fit = fitter_of(TINY, config, images, labels, renderings=torch.ones_like(images))
    shown: list[torch.Tensor] = []
    step = fit._step

    def spy(
        batch: torch.Tensor, labels: torch.Tensor, outliers: torch.Tensor | None, *, n_digits: int
    ) -> Step:
        shown.append(batch.mean(dim=(1, 2, 3)))
        return step(batch, labels, outliers, n_digits=n_digits)

    fit._step = spy  # type: ignore[method-assign]
    list(fit.run_epoch())
    return fit, shown


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_images_is_replaced_by_renderings(share: float) -> None:
    fit, shown = marked(share)
    values = torch.cat(shown)
    assert set(values.tolist()) <= {0.0, 1.0}  # each whole, never a mixture
    # 4 standard errors of a share among 400.
    assert abs(float(values.mean()) - share) <= 4 * math.sqrt(share * (1 - share) / 400)
    assert fit.n_train == 400  # an augmentation, no further data
    assert not share % 1 or not torch.equal(values, torch.cat(marked(share, seed=1)[1]))


def test_renderings_are_needed_where_a_share_is_set() -> None:
    images, labels = random_data()
    for renderings in (None, images[:3]):
        with pytest.raises(ValueError, match="rendering of each image"):
            fitter_of(
                TINY, FitConfig(epochs=1, imitated=0.5), images, labels, renderings=renderings
            )


def test_a_state_of_another_network_is_refused() -> None:
    fit = tiny_fitter()
    list(fit.run_epoch())
    state = fit.state()
    with pytest.raises(KeyError):
        tiny_fitter().restore({k: v for k, v in state.items() if "conv1" not in k})
    state["parameter.dense1.weight_mean"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"dense1\.weight_mean"):
        tiny_fitter().restore(state)


def test_the_learning_rate_rises_and_falls() -> None:
    values = [learning_rate_factor(p, 0.1) for p in np.linspace(0, 1, 101)]
    assert values[0] == 0
    assert max(values) == values[10] == 1
    assert values[55] == pytest.approx(0.5)
    assert values[-1] == pytest.approx(0, abs=1e-12)
    assert math.isclose(learning_rate_factor(0.05, 0.1), 0.5)


def test_augmentation_distorts_every_image_differently_and_keeps_its_foreground() -> None:
    images = torch.zeros(64, 1, 28, 28)
    images[:, :, 10:18, 12:16] = 1
    moved = Distortion()(images, generator())
    assert moved.shape == images.shape
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 64
    ink = moved.sum((1, 2, 3)) / 32
    assert ink.min() > 0.7
    assert ink.max() < 1.4
    assert torch.equal(moved, Distortion()(images, generator()))


def test_augmentation_of_size_zero_changes_nothing() -> None:
    images = torch.rand(3, 1, 28, 28, generator=generator())
    same = Distortion(0, 0, 0, 0)(images, generator())
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_a_shift_is_as_large_as_stated() -> None:
    images = torch.zeros(500, 1, 28, 28)
    images[:, 0, 14, 14] = 1
    moved = Distortion(0, 0, 0, shift_px=2)(images, generator())
    columns = (moved.sum((1, 2)) * torch.arange(28)).sum(1) / moved.sum((1, 2, 3)) - 14
    assert 1.8 < columns.abs().max() <= 2.01
    assert abs(columns.mean()) < 4 * 2 / math.sqrt(3 * 500)
