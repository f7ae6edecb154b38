"""Memory that is a process's own, looked at while it works."""

import threading
from pathlib import Path


class Watch:
    """The largest memory of this process that is its own (not mapped files), in MiB, looked at often."""

    def __init__(self) -> None:
        self._peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def peak(self) -> float:
        """The largest until now."""
        self._peak = max(self._peak, own_memory()["RssAnon"])
        return self._peak

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            self.peak()

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def own_memory() -> dict[str, float]:
    """Resident memory of this process by kind, in MiB (zeros where the system does not tell)."""
    found = {"RssAnon": 0.0, "RssFile": 0.0, "RssShmem": 0.0}
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return found
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) / 1024
    return found
