"""The model in service and the worker pool that answers with it."""

import asyncio
import logging

from service import errors
from service.errors import ProblemError
from service.inference.worker_pool import WorkerPool, make_pool
from service.model_lifecycle.loading import LoadedModel
from service.observability.metrics import Metrics
from service.request_state import Reservation
from service.settings import Settings

_log = logging.getLogger("service")


class ModelProvider:
    """Owns what answers: the model and its worker pool. Routes ask it for both.

    Requests that are being answered keep the model they began with.

    Args:
        settings: The settings of the service.
        metrics: Record which model is served.

    Attributes:
        reload_error: Why the newest checkpoint is not in service; None if it is.
        is_draining: Whether the service is about to stop: it still answers, but is not ready.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._model: LoadedModel | None = None
        self._pool: WorkerPool | None = None
        self.reload_error: str | None = None
        self.is_draining = False

    def install(self, model: LoadedModel) -> None:
        """Put a model into service: at start, after a change of its file, on rollout."""
        settings, classifier = self._settings, model.classifier
        if self._pool is None:
            self._pool = make_pool(
                settings, classifier.engine.device, self._metrics.record_busy_worker
            )
            _log.info(
                "%d worker threads, at most %d images waiting",
                self._pool.n_workers,
                settings.max_queued_images,
            )
        event = "ready" if self._model is None else "reloaded"
        self._model, self.reload_error = model, None
        self._metrics.record_model(name=model.name, version=model.version, source=model.source)
        _log.info(
            "%s: %s %s (%s), %d draws by %s on %s",
            event,
            model.name,
            model.version,
            "bundled" if model.source == "shipped" else model.path,
            settings.draws,
            classifier.engine.name,
            classifier.engine.device,
        )
        n_calibrated = classifier.checkpoint.selective.n_draws
        if settings.draws != n_calibrated:
            _log.warning(
                "%d draws are held, but the decision rule was calibrated with %d: only answers "
                "with that many samples are marked calibrated",
                settings.draws,
                n_calibrated,
            )
        if not classifier.draws_reproduced:
            _log.warning(
                "this installation samples other draws than those that calibrated the decision "
                "rule: no answer is marked calibrated"
            )

    def get(self) -> LoadedModel:
        """Return the model in service.

        Raises:
            ProblemError: 503 while there is none.
        """
        if self._model is None:
            raise errors.loading()
        return self._model

    @property
    def pool(self) -> WorkerPool:
        """The worker pool.

        Raises:
            ProblemError: 503 while there is no model.
        """
        if self._pool is None:
            raise errors.loading()
        return self._pool

    @property
    def n_pending(self) -> int:
        """How many images are admitted and not yet answered."""
        return self._pool.admission.pending.count if self._pool is not None else 0

    @property
    def is_ready(self) -> bool:
        """Whether load balancers should send requests here."""
        return self._model is not None and not self.is_draining

    def check_ready(self) -> None:
        """Check that load balancers should send requests here.

        Raises:
            ProblemError: 503 while there is no model, or while the service is draining.
        """
        if self.is_draining:
            raise errors.draining()
        self.get()

    def check_capacity(self) -> ProblemError | None:
        """Return the error for one more image, or None if it may come."""
        if self._model is None or self._pool is None:
            return errors.loading()
        return self._pool.admission.check_capacity()

    def reserve(self) -> Reservation:
        """Make a reservation for one more request."""
        return self.pool.admission.reserve()

    async def close(self) -> None:
        """Take the model out of service and stop the workers."""
        self._model = None
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)
