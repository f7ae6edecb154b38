"""What our stream is compared with: bare decoding, and loaders of other projects, on the same images.

All of them give uint8 images and masks of one size in batches; none is tuned beyond as many processes as
cores. They read plain files, tars or shards that are written from the store first.
"""

import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.store.record import decode_image, decode_mask
from unigeoseg.errors import UserError
from unigeoseg.samples.letterbox import letterbox_image, letterbox_mask

BATCH: Final = 16
# Deliveries come in rounds, one a worker; this many make whole rounds for 1, 2 and 4 workers.
_ROUND: Final = 4
# More deliveries than any loader here prepares ahead (four batches, or four blocks).
_EDGE: Final = 8


@dataclass(frozen=True)
class Item:
    """An encoded image in a file, and one mask on it."""

    file: str
    height: int
    width: int
    mask: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Images and samples in so many seconds, between two moments at which a loader was equally full."""

    images: int
    samples: int
    seconds: float


Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def decode(data: bytes, item: Item, size: int) -> Pair:
    """Letterboxed image and mask."""
    image = decode_image(data, item.height, item.width)
    mask = decode_mask(item.mask, item.height, item.width)
    return letterbox_image(image, size), letterbox_mask(mask, size)


def bare(items: list[Item], size: int, workers: int, folder: Path) -> Measured:
    """Decoding alone, by the fastest decoder at hand, in as many processes as there are cores: the limit."""
    parts = [(items[i : i + BATCH], size) for i in range(0, len(items), BATCH)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        pool.map(_decode_all, [parts[0]] * (4 * workers), chunksize=1)  # imports are no decoding
        started = time.perf_counter()
        for _ in pool.imap_unordered(_decode_all, parts):  # shared out as they are done: all end together
            pass
        return Measured(len(items), len(items), time.perf_counter() - started)


def _decode_all(work: tuple[list[Item], int]) -> None:
    items, size = work
    for item in items:
        decode(Path(item.file).read_bytes(), item, size)


class _Files:
    """A map-style dataset over the files."""

    def __init__(self, items: list[Item], size: int) -> None:
        self._items, self._size = items, size

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Pair:
        item = self._items[number]
        return decode(Path(item.file).read_bytes(), item, self._size)


def torch_files(items: list[Item], size: int, workers: int, folder: Path) -> Measured:
    """``torch.utils.data.DataLoader`` over files."""
    from torch.utils.data import DataLoader

    return count_batches(DataLoader(_Files(items, size), BATCH, num_workers=workers))  # type: ignore[arg-type]


class _FromTar:
    """Decodes what webdataset hands over."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, parts: dict[str, Any]) -> Pair:
        return decode(parts["img"], Item(**json.loads(parts["json"])), self._size)


def webdataset_tars(items: list[Item], size: int, workers: int, folder: Path) -> Measured:
    """``webdataset`` over tars, one a worker at least."""
    import webdataset

    per_shard = max(1, min(512, -(-len(items) // workers)))
    with webdataset.ShardWriter(str(folder / "wds-%05d.tar"), maxcount=per_shard, verbose=0) as writer:
        for i, item in enumerate(items):
            content = {"img": Path(item.file).read_bytes(), "json": json.dumps(vars(item)).encode()}
            writer.write({"__key__": f"{i:08d}", **content})
    tars = sorted(str(path) for path in folder.glob("wds-*.tar"))
    data = webdataset.WebDataset(tars, shardshuffle=False).map(_FromTar(size)).batched(BATCH)
    return count_batches(webdataset.WebLoader(data, batch_size=None, num_workers=min(workers, len(tars))))


def mds_shards(items: list[Item], size: int, workers: int, folder: Path) -> Measured:
    """``mosaicml-streaming`` over its own shards."""
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    with MDSWriter(out=str(folder / "mds"), columns={"img": "bytes", "json": "bytes"}) as writer:
        for item in items:
            writer.write({"img": Path(item.file).read_bytes(), "json": json.dumps(vars(item)).encode()})
    convert = _FromTar(size)

    class Shards(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return convert(super().__getitem__(at))

    data = Shards(local=str(folder / "mds"), batch_size=BATCH, shuffle=False)
    return count_batches(DataLoader(data, BATCH, num_workers=workers))


def mds_elsewhere(python: str) -> Callable[[list[Item], int, int, Path], Measured]:
    """:func:`mds_shards` under another interpreter: mosaicml-streaming needs another botocore than s3fs."""

    def measure(items: list[Item], size: int, workers: int, folder: Path) -> Measured:
        work = folder / "items.json"
        work.write_text(json.dumps([vars(item) for item in items]), encoding="utf-8")
        words = [python, "-m", "pipelines.bench.mds_process", str(work), str(size), str(workers)]
        root = Path(__file__).parents[2]
        answer = subprocess.run(
            words, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
        )
        if answer.returncode:
            last = answer.stderr.strip().rpartition("\n")[2]
            raise UserError(f"{python} cannot run mosaicml-streaming: {last}")
        return Measured(**json.loads(answer.stdout.strip().rpartition("\n")[2]))

    return measure


#: Name, module that it needs, how it is measured.
PEERS: Final[list[tuple[str, str, Callable[[list[Item], int, int, Path], Measured]]]] = [
    ("torch DataLoader", "torch", torch_files),
    ("webdataset", "webdataset", webdataset_tars),
    ("mosaicml-streaming", "streaming", mds_shards),
]


def installed(module: str) -> bool:
    """Whether a peer can be measured here."""
    return find_spec(module) is not None


def count_batches(batches: Iterable[Any]) -> Measured:
    """Goes through all batches and measures its middle."""
    clock = Clock()
    for images, _ in batches:
        clock.mark()
        clock.images += len(images)
    return clock.measured()


class Clock:
    """Measures a loader between two of its deliveries.

    What a loader has at hand when the clock starts would count in its favour, what it has left at the end
    against it. So both ends are a delivery of the same kind, a whole number of rounds of its workers
    apart, neither near the loader's start, where it fills, nor near its end, where it runs dry.

    Attributes:
        images: delivered so far.
    """

    def __init__(self) -> None:
        self.images = 0
        self._marks: list[tuple[float, int]] = []

    def mark(self) -> None:
        """A delivery begins."""
        self._marks.append((time.perf_counter(), self.images))

    def measured(self) -> Measured:
        """The middle: without the first and last few deliveries, a quarter at most.

        Raises:
            UserError: there were too few deliveries.
        """
        count = len(self._marks)
        edge = min(_EDGE, count // 4 // _ROUND * _ROUND)
        rounds = (count - 1 - 2 * edge) // _ROUND
        if rounds < 1:
            raise UserError(
                f"{self.images} images came in {count} deliveries: too few for a rate; raise --samples or "
                "lower data.block_positions"
            )
        first, last = self._marks[edge], self._marks[edge + rounds * _ROUND]
        images = last[1] - first[1]
        return Measured(images, images, last[0] - first[0])
