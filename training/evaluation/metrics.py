"""Metrics of predictive probabilities (N, C) against true classes (N,)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from model.types import Floats

Labels = NDArray[np.int64]
Bools = NDArray[np.bool_]
_LEAST_PROBABILITY = np.finfo(np.float64).tiny
_N_BINS = 15


def error_rate(probability: Floats, labels: Labels) -> float:
    """Share of images whose most probable class is wrong, in [0, 1]."""
    return float(np.mean(probability.argmax(axis=1) != labels))


def nll(probability: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood -ln p(true class), in nats, at least 0."""
    return float(_nll_each(probability, labels).mean())


def brier_score(probability: Floats, labels: Labels) -> float:
    """Mean squared distance Σ_c (p_c - [c is true])², in [0, 2].

    Source: Brier (1950), "Verification of forecasts expressed in terms of probability".
    """
    return float(_brier_each(probability, labels).mean())


def calibration_error(probability: Floats, labels: Labels, n_bins: int = _N_BINS) -> float:
    """Expected calibration error of the top class over equally wide bins, in [0, 1].

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    return _calibration_error(probability, labels, confidence_bins(probability, n_bins))


def adaptive_calibration_error(probability: Floats, labels: Labels, n_bins: int = _N_BINS) -> float:
    """Calibration error of the top class over bins of equally many images, in [0, 1].

    Equally wide bins are nearly all empty if most confidences are close to 1.

    Source: Nguyen and O'Connor (2015), "Posterior calibration and exploratory analysis for natural
    language processing models", section 3.2 (with absolute instead of squared differences).
    """
    return _calibration_error(probability, labels, _equal_bins(probability, n_bins))


def confidence_bins(probability: Floats, n_bins: int = _N_BINS) -> NDArray[np.int64]:
    """Index of the equally wide bin of each top class's probability (N,).

    A bin holds its lower edge; the last one holds 1 too.
    """
    edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    bins: NDArray[np.int64] = np.searchsorted(edges, probability.max(axis=1), side="right")
    return bins


def risk_coverage_curve(score: Floats, correct: Bools) -> tuple[Floats, Floats]:
    """Error rate among the k most certain images, for all k.

    Images with equal scores have no order: the curve is the mean over all orders.

    Args:
        score: Uncertainty of each image (N,); larger is less certain.
        correct: Whether each prediction is correct (N,).

    Returns:
        Coverage k / N in (0, 1] and risk in [0, 1], each (N,).

    Source: El-Yaniv and Wiener (2010), "On the Foundations of Noise-free Selective Classification".
    """
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    wrong = np.repeat(np.bincount(group, ~correct) / size, size)
    k = np.arange(1, len(wrong) + 1)
    return k / len(wrong), np.cumsum(wrong) / k


def area_under_risk_coverage(score: Floats, correct: Bools) -> float:
    """Mean error rate among the k most certain images, over all k: 0 is best.

    Args:
        score: Uncertainty of each image (N,); larger is less certain.
        correct: Whether each prediction is correct (N,).

    Source: Geifman, Uziel and El-Yaniv (2019), "Bias-Reduced Uncertainty Estimation for Deep
    Neural Classifiers".
    """
    return float(risk_coverage_curve(score, correct)[1].mean())


def errors_at_coverage(score: Floats, correct: Bools, coverage: float) -> tuple[int, int]:
    """Number of errors among the most certain images.

    Args:
        score: Uncertainty of each image (N,); larger is less certain.
        correct: Whether each prediction is correct (N,).
        coverage: Share of the images that counts, in (0, 1].

    Returns:
        The number of these images, N · coverage rounded down, and of errors among them.
    """
    n = int(len(score) * coverage + 1e-9)  # 0.95 · 10000 is 9500, not 9499.999…
    return n, int((~correct[np.argsort(score, kind="stable")[:n]]).sum())


def auroc(inside: Floats, outside: Floats) -> float:
    """Probability that an out-of-distribution image has the larger score; ties count half.

    Args:
        inside: Scores of in-distribution images (N,).
        outside: Scores of out-of-distribution images (M,).
    """
    # By rank, since scikit-learn rejects infinite scores.
    _, ranks = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    return float(roc_auc_score(np.arange(len(ranks)) >= len(inside), ranks))


def false_positive_rate(inside: Floats, outside: Floats, true_positive_rate: float = 0.95) -> float:
    """Share of out-of-distribution images below a threshold that most digits stay below.

    Args:
        inside: Scores of in-distribution images (N,); larger is less like training.
        outside: Scores of out-of-distribution images (M,).
        true_positive_rate: Least share of the in-distribution images below the threshold.

    Source: Hendrycks and Gimpel (2017), "A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples in Neural Networks"; Liang, Li and Srikant (2018), "Enhancing the
    Reliability of Out-of-distribution Image Detection in Neural Networks".
    """
    threshold = np.quantile(inside, true_positive_rate, method="higher")
    return float(np.mean(outside <= threshold))


def bootstrap_intervals(
    probability: Floats, labels: Labels, *, level: float = 0.95, n_resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals: how much metrics would vary with other images of the same kind.

    Images are resampled with replacement, always with the same random numbers.

    Args:
        probability: Predictive probabilities (N, C).
        labels: True classes (N,).
        level: Mass of each interval.
        n_resamples: Number of resamples.

    Returns:
        Percentile intervals of `error`, `nll`, `brier_score`, `calibration_error` and
        `adaptive_calibration_error`.

    Source: Efron (1979), "Bootstrap Methods: Another Look at the Jackknife".
    """
    n = len(labels)
    gap = _gaps(probability, labels)
    means = np.stack(
        [
            probability.argmax(axis=1) != labels,
            _nll_each(probability, labels),
            _brier_each(probability, labels),
        ],
        axis=1,
    )
    binned = [
        np.eye(_N_BINS)[bins] * gap[:, None]
        for bins in (confidence_bins(probability), _equal_bins(probability, _N_BINS))
    ]
    rng = np.random.Generator(np.random.Philox(key=np.array([n, 0], np.uint64)))
    drawn = np.empty((n_resamples, 5))
    for row in drawn:
        times = rng.multinomial(n, np.full(n, 1 / n)) / n
        row[:3] = times @ means
        row[3:] = [np.abs(times @ sums).sum() for sums in binned]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    names = ("error", "nll", "brier_score", "calibration_error", "adaptive_calibration_error")
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def _nll_each(probability: Floats, labels: Labels) -> Floats:
    true = probability[np.arange(len(labels)), labels]
    result: Floats = -np.log(np.maximum(true, _LEAST_PROBABILITY))
    return result


def _brier_each(probability: Floats, labels: Labels) -> Floats:
    truth = np.eye(probability.shape[1])[labels]
    result: Floats = np.square(probability - truth).sum(axis=1)
    return result


def _gaps(probability: Floats, labels: Labels) -> Floats:
    """Confidence of each top class minus 1 if it is correct (N,)."""
    result: Floats = probability.max(axis=1) - (probability.argmax(axis=1) == labels)
    return result


def _calibration_error(probability: Floats, labels: Labels, bins: NDArray[np.int64]) -> float:
    return float(np.abs(np.bincount(bins, _gaps(probability, labels))).sum() / len(labels))


def _equal_bins(probability: Floats, n_bins: int) -> NDArray[np.int64]:
    """Index of the bin of equally many images that each confidence is in (N,)."""
    rank = np.argsort(np.argsort(probability.max(axis=1), kind="stable"), kind="stable")
    result: NDArray[np.int64] = (rank * n_bins // len(rank)).astype(np.int64)
    return result
