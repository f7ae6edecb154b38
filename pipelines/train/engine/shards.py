"""The shard files of a checkpoint: pieces of weights and moments in safetensors, and an index of them.

Each rank writes one file. ``layout.json`` says which elements of which parameter lie in which file, so that a
reader of any world size takes just the slices it needs, and knows which files to fetch.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.train.engine.pieces import WEIGHT, Piece
from unigeoseg.errors import UserError

LAYOUT = "layout.json"
#: Of ``layout.json``; another number is another format.
FORMAT = 1


def shard_name(rank: int, world: int) -> str:
    """File of a rank."""
    return f"shard-{rank:05d}-of-{world:05d}.safetensors"


@dataclass
class Snapshot:
    """A rank's pieces in host memory, apart from what training goes on to change.

    Attributes:
        tensors: by ``kind/parameter``, float32 ``[count]``.
        parameters: by name, ``{"shape", "start", "count", "step"}``.
    """

    tensors: dict[str, Tensor]
    parameters: dict[str, dict[str, Any]]

    @property
    def bytes(self) -> int:
        """Size."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


def take_snapshot(pieces: Iterable[Piece], copy: bool = True) -> Snapshot:
    """Copies pieces to the host.

    Args:
        pieces: this rank's.
        copy: ``False`` leaves what is in host memory already where it is; training must wait until it is
            written.
    """
    tensors, parameters = {}, {}
    for piece in pieces:
        for kind, value in piece.values.items():
            on_host = value.to("cpu", torch.float32)
            tensors[f"{kind}/{piece.name}"] = on_host.clone() if copy and on_host is value else on_host
        parameters[piece.name] = {
            "shape": list(piece.shape),
            "start": piece.start,
            "count": piece.count,
            "step": piece.step,
        }
    return Snapshot(tensors, parameters)


def write_shard(path: Path, snapshot: Snapshot) -> None:
    """Writes a snapshot; other threads run meanwhile.

    Raises:
        OSError: as the system says it, a full disk for instance.
    """
    try:
        save_file(snapshot.tensors, str(path))
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def layout_of(shards: Mapping[str, dict[str, dict[str, Any]]], tied: Mapping[str, str]) -> dict[str, Any]:
    """Content of ``layout.json``.

    Args:
        shards: by file, the ``parameters`` of its snapshot.
        tied: other names of parameters in the model, each with the name in the shards.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for pieces in shards.values():
        for name, piece in pieces.items():
            known = parameters.setdefault(name, {"shape": piece["shape"], "step": piece["step"]})
            known["step"] = max(known["step"], piece["step"])
    files = {
        file: {name: [piece["start"], piece["count"]] for name, piece in pieces.items()}
        for file, pieces in shards.items()
    }
    return {"format": FORMAT, "parameters": parameters, "tied": dict(tied), "files": files}


class ShardReader:
    """Reads elements of parameters from the shard files of a checkpoint.

    Args:
        folder: where the files are; only those that :meth:`files_for` names for what is read.
        layout: content of ``layout.json``.

    Raises:
        ValueError: the layout is of another format.
    """

    def __init__(self, folder: Path, layout: dict[str, Any]) -> None:
        if layout.get("format") != FORMAT:
            raise ValueError(f"{LAYOUT} is of format {layout.get('format')}, this version reads {FORMAT}")
        self._folder, self._layout = folder, layout
        self._open: dict[str, Any] = {}
        self._places: dict[str, list[tuple[int, int, str]]] = {}
        for file, pieces in layout["files"].items():
            for name, (start, count) in pieces.items():
                self._places.setdefault(name, []).append((start, count, file))

    @staticmethod
    def open(folder: Path) -> "ShardReader":
        """Of a folder with ``layout.json``."""
        return ShardReader(folder, json.loads((folder / LAYOUT).read_text(encoding="utf-8")))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all parameters in the checkpoint."""
        return {name: tuple(entry["shape"]) for name, entry in self._layout["parameters"].items()}

    @property
    def steps(self) -> dict[str, float]:
        """AdamW's count by parameter."""
        return {name: float(entry["step"]) for name, entry in self._layout["parameters"].items()}

    @property
    def tied(self) -> dict[str, str]:
        """Other names in the model, each with the parameter that it means."""
        return dict(self._layout["tied"])

    def files_for(self, spans: Iterable[tuple[str, int, int]]) -> set[str]:
        """Files that hold any element of the ``(parameter, start, count)``."""
        return {
            file
            for name, start, count in spans
            for at, size, file in self._places.get(name, ())
            if max(start, at) < min(start + count, at + size)
        }

    def read(self, kind: str, name: str, start: int, into: Tensor) -> None:
        """Fills ``into`` (flat) with a parameter's elements from ``start`` on.

        Raises:
            ValueError: the checkpoint does not hold all of them.
        """
        filled, count = 0, into.numel()
        for at, size, file in self._places.get(name, ()):
            first, last = max(start, at), min(start + count, at + size)
            if first < last:
                part = self._file(file).get_slice(f"{kind}/{name}")[first - at : last - at]
                into[first - start : last - start].copy_(part)
                filled += last - first
        if filled != count:
            raise ValueError(f"the checkpoint holds {filled} of {count} elements of {kind} of {name}")

    def whole(self, name: str) -> Tensor:
        """A parameter's weight, float32 in its own shape."""
        shape = self.shapes[name]
        flat = torch.empty(torch.Size(shape).numel())
        self.read(WEIGHT, name, 0, flat)
        return flat.view(shape)

    def restore(self, pieces: Iterable[Piece]) -> None:
        """Fills the values of pieces in place.

        Raises:
            UserError: the checkpoint lacks a moment, having been written with another optimizer.
        """
        for piece in pieces:
            for kind, values in piece.values.items():
                try:
                    self.read(kind, piece.name, piece.start, values)
                except SafetensorError as error:
                    raise UserError(
                        f"{self._folder} has no {kind} of {piece.name}: it was written with another "
                        "train.optimizer; set that one, or start a new run with --set init.model=EXPORT"
                    ) from error

    def _file(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = safe_open(str(self._folder / name), framework="pt")
        return self._open[name]
