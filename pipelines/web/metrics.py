"""Numbers for Prometheus, where its client library is installed."""

import importlib
from typing import Any

TEXT = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counts of a service; without the library ``prometheus_client`` nothing is counted."""

    def __init__(self) -> None:
        try:
            client: Any = importlib.import_module("prometheus_client")
        except ImportError:
            self.there = False
            return
        self.there = True
        self._client, self._registry = client, client.CollectorRegistry()
        names = {"registry": self._registry, "namespace": "unigeoseg"}
        self._requests = client.Counter(
            "requests", "Requests by path and status.", ["path", "status"], **names
        )
        self._seconds = client.Histogram("answer_seconds", "Seconds of an answer.", buckets=_SECONDS, **names)
        self._waiting = client.Gauge("waiting", "Instructions in the queue.", **names)
        self._refused = client.Counter("refused", "Instructions refused for a full queue.", **names)
        self._looks = client.Counter(
            "looks", "Pictures for the model, by whether they were seen.", ["kept"], **names
        )

    def request(self, path: str, status: int) -> None:
        """A request was answered; ``path`` is the route's, not what a caller wrote."""
        if self.there:
            self._requests.labels(path, str(status)).inc()

    def answered(self, seconds: float) -> None:
        """An instruction was answered."""
        if self.there:
            self._seconds.observe(seconds)

    def waiting(self, count: int) -> None:
        """So many are in the queue."""
        if self.there:
            self._waiting.set(count)

    def refused(self) -> None:
        """One was refused."""
        if self.there:
            self._refused.inc()

    def looked(self, kept: bool) -> None:
        """A picture was needed; ``kept``: it had been seen."""
        if self.there:
            self._looks.labels("yes" if kept else "no").inc()

    def text(self) -> bytes | None:
        """All of them in Prometheus' format; ``None`` without its library."""
        return bytes(self._client.generate_latest(self._registry)) if self.there else None
