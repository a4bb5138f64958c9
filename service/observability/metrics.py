"""What the service tells Prometheus of itself: how much is asked, how long it takes, what is said.

Waiting and computing are told apart, since more machines help against the one and not the other.
Entropy and decisions are there because a change in what is sent shows in them first.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from model.classifier import Decision, Prediction
from model.decision import Reason
from service.model_lifecycle.provider import Served

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_NATS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1, 1.5, 2)
_PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)

# Why a request was turned away, by the status that says so.
_REJECTIONS = {
    400: "malformed",
    401: "unauthorized",
    403: "reload_disabled",
    408: "body_too_slow",
    413: "too_large",
    415: "not_a_picture",
    422: "unreadable",
    429: "queue_full",
    503: "not_ready",
    504: "too_late",
}
# Whatever a client makes up must not become a time series of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one application, in a registry of their own.

    Args:
        pending: How many pictures are waiting or being answered.
        ready: Whether requests should be sent here.
    """

    def __init__(self, pending: Callable[[], int], ready: Callable[[], bool]) -> None:
        """All at zero; see the class."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def histogram(
            name: str, meaning: str, buckets: Sequence[float], labels: Sequence[str] = ()
        ) -> Histogram:
            return Histogram(name, meaning, labels, buckets=buckets, registry=registry)

        def counter(name: str, meaning: str, label: str, known: Iterable[str]) -> Counter:
            made = Counter(name, meaning, [label], registry=registry)
            for value in known:
                made.labels(value)  # there from the start, at 0
            return made

        self._requests = Counter(
            "mnn_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._duration = histogram(
            "mnn_request_duration_seconds",
            "From a request's whole head to the head of its answer.",
            _SECONDS,
            ["route"],
        )
        self._faults = Counter(
            "mnn_faults_total",
            "Faults of the service's own: requests, and files of batches, that are answered 500.",
            registry=registry,
        )
        self._rejections = counter(
            "mnn_rejections_total",
            "Requests that were turned away, by reason.",
            "reason",
            _REJECTIONS.values(),
        )
        self._wait = histogram(
            "mnn_queue_wait_seconds", "From a picture's admission to a lane's taking it.", _SECONDS
        )
        self._compute = histogram(
            "mnn_compute_seconds",
            "From a lane's taking a picture to its answer: decoding and inference.",
            _SECONDS,
        )
        self._lane_busy = Counter(
            "mnn_lane_busy_seconds_total",
            "Time that lanes were at work, pictures taken together counted once; of all lanes.",
            registry=registry,
        )
        Gauge(
            "mnn_pending_pictures", "Pictures waiting or being answered.", registry=registry
        ).set_function(pending)
        self._entropy = histogram(
            "mnn_predictive_entropy_nats", "Total uncertainty of the answers.", _NATS
        )
        self._not_a_digit = histogram(
            "mnn_not_a_digit_probability",
            "How probable it was that the picture was no digit.",
            _PROBABILITIES,
        )
        self._decisions = counter(
            "mnn_decisions_total", "Answers by decision.", "decision", get_args(Decision)
        )
        self._reasons = counter(
            "mnn_review_reasons_total",
            "Reasons why a person should look; an answer may have several.",
            "reason",
            get_args(Reason),
        )
        self._model = Info("mnn_model", "What is being served.", registry=registry)
        Gauge(
            "mnn_ready", "1 while requests should be sent here, else 0.", registry=registry
        ).set_function(ready)
        self._reloads = counter(
            "mnn_reloads_total",
            "Checkpoints that took the place of the served one, or were refused.",
            "outcome",
            ("taken", "refused"),
        )

    def saw_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: The address as it is declared, without what varies in it.
            method: Its HTTP method.
            status: The status of its answer.
            seconds: Until the head of the answer.
        """
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._duration.labels(route).observe(seconds)
        if status in _REJECTIONS:
            self._rejections.labels(_REJECTIONS[status]).inc()
        if status == 500:
            self.saw_fault()

    def saw_fault(self) -> None:
        """Count a fault, also of one file of a batch, whose own status says nothing of it."""
        self._faults.inc()

    def saw_lane(self, seconds: float) -> None:
        """Note how long a lane was at work on what it had taken. May be called from any thread."""
        self._lane_busy.inc(seconds)

    def saw_times(self, times: Iterable[tuple[float, float]]) -> None:
        """Note waiting and computing of pictures, each in milliseconds."""
        for queue_ms, compute_ms in times:
            self._wait.observe(queue_ms / 1000)
            self._compute.observe(compute_ms / 1000)

    def saw_answer(self, answer: Prediction) -> None:
        """Note what was said of a picture."""
        self._entropy.observe(answer.predictive_entropy)
        if answer.not_a_digit is not None:
            self._not_a_digit.observe(answer.not_a_digit.probability)
        self._decisions.labels(answer.decision).inc()
        for reason in answer.reasons:
            self._reasons.labels(reason).inc()

    def serves(self, served: Served) -> None:
        """Note what is served from now on."""
        classifier = served.classifier
        self._model.info(
            {
                "name": classifier.checkpoint.name,
                "version": classifier.version,
                "source": served.source,
            }
        )

    def saw_reload(self, *, taken: bool) -> None:
        """Count a checkpoint that was to take the place of the served one."""
        self._reloads.labels("taken" if taken else "refused").inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it as text.

        Args:
            accept: The client's `Accept` header, which may ask for OpenMetrics.

        Returns:
            The text and its media type.
        """
        try:
            encode, media_type = choose_encoder(accept)
            return encode(self._registry), media_type
        except Exception:  # noqa: BLE001 - the library's own about a version that is no number
            encode, media_type = choose_encoder("")
            return encode(self._registry), media_type
