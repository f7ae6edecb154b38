"""Storage whose requests are counted: the local filesystem, watched."""

import threading
import time
from collections import Counter
from contextlib import contextmanager

from fsspec.implementations.local import LocalFileSystem

#: What stands for one request to an object store, or more.
REQUESTS = ("cat_file", "open", "size", "exists", "info", "ls", "glob", "isdir")


class Requests:
    """What was asked of storage.

    Attributes:
        counts: of (method, path).
        most: requests that were under way at one moment.
    """

    def __init__(self):
        self.counts, self.most = Counter(), 0
        self._now, self._lock, self._local = 0, threading.Lock(), threading.local()

    def of(self, *ends, method=None):
        """How many requests there were for paths that hold one of these texts."""
        chosen = [n for (how, path), n in self.counts.items() if how == (method or how)
                  and (not ends or any(end in path for end in ends))]  # fmt: skip
        return sum(chosen)

    def watch(self, name, method):
        def asked(fs, path, *args, **options):
            if getattr(self._local, "inside", False):  # one request that is made of others
                return method(fs, path, *args, **options)
            self._local.inside = True
            with self._lock:
                self.counts[name, str(path)] += 1
                self._now += 1
                self.most = max(self.most, self._now)
            try:
                time.sleep(0.002)  # so that those which may overlap do
                return method(fs, path, *args, **options)
            finally:
                self._local.inside = False
                with self._lock:
                    self._now -= 1

        return asked


@contextmanager
def counted(monkeypatch):
    """Counts while the block lasts."""
    requests = Requests()
    with monkeypatch.context() as patch:
        for name in REQUESTS:
            patch.setattr(LocalFileSystem, name, requests.watch(name, getattr(LocalFileSystem, name)))
        yield requests
