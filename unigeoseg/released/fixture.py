"""Reference inputs and outputs of the released code; the weights are a formula of their names."""

import json
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.released.config import read_config
from unigeoseg.samples.batch import Batch
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING, TASK_IDS

#: Placeholders in ``input_ids``.
_IMAGE, _SEG, _REFER, _ANSWER, _IGNORE = -200, -201, -204, -205, -100
_TASKS = {"intera": INTERACTIVE, "ref": REFERRING, "reason": REASONING}
_SUM_TOLERANCE = 1e-3

Arrays = dict[str, NDArray[Any]]


class Fixture:
    """A folder with ``state_spec.json``, ``meta.json`` and ``inputs_*.npz``, ``outputs_*.npz`` by set.

    Raises:
        UserError: a file is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.spec = self._json("state_spec.json")
        self.meta = self._json("meta.json")

    @property
    def sets(self) -> list[str]:
        """Names of the sets, in order."""
        return list(self.meta)

    @cached_property
    def config(self) -> ModelConfig:
        """Our configuration, from the recorded one and the tensors' shapes."""
        recorded = self.spec["config"]
        content = {
            **recorded.get("phi", {}),
            "num_attention_heads": recorded["heads"],
            "mm_projector_type": recorded["projector"],
            "image_size": recorded["S"],
        }
        return read_config({k: tuple(v["shape"]) for k, v in self.spec["keys"].items()}, content)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int(self.spec["keys"]["model.embed_tokens.weight"]["shape"][0])

    def weights(self) -> dict[str, Tensor]:
        """The released state dict, filled by the rule and held against the recorded sums.

        Structural integer buffers (kind ``keep``) are left out: they follow from the configuration.

        Raises:
            UserError: a tensor does not have the recorded sum.
        """
        salt = self.spec["salt"]
        filled = {}
        for key, entry in self.spec["keys"].items():
            if entry["kind"] == "keep":
                continue
            values = formula(salt + key, entry)
            total = float(values.sum(dtype=np.float64))
            if abs(total - entry["sum"]) > _SUM_TOLERANCE:
                raise UserError(f"{self.folder}: {key} sums to {total}, recorded is {entry['sum']}")
            filled[key] = torch.from_numpy(values)
        return filled

    def arrays(self, kind: str, name: str) -> Arrays:
        """``inputs`` or ``outputs`` of a set."""
        path = self.folder / f"{kind}_{name}.npz"
        if not path.is_file():
            raise UserError(f"{self.folder} is no complete fixture: {path.name} is missing")
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}

    def batch(self, name: str) -> Batch:
        """The inputs of a set as a batch; its image tokens are spliced in as the released code does."""
        inputs = self.arrays("inputs", name)
        count = len(inputs["image_u8"])
        rows = [splice(inputs, row, self.config.image_tokens) for row in range(count)]
        coordinates, given = _coordinates([inputs[f"intera_coords_{row}"] for row in range(count)])
        images = torch.from_numpy(inputs["image_u8"])
        if images.shape[1] != 3:
            images = images.permute(0, 3, 1, 2)
        return Batch(
            images=images.contiguous(),
            image_index=torch.arange(count),
            input_ids=_padded([r["ids"] for r in rows], 0),
            attention_mask=_padded([r["attention"] for r in rows], False),
            image_mask=_padded([r["image"] for r in rows], False),
            instruction_mask=_padded([r["instruction"] for r in rows], False),
            labels=_padded([r["labels"] for r in rows], _IGNORE),
            task=torch.tensor([TASK_IDS[_TASKS[str(t)]] for t in inputs["prompt_type"]]),
            coordinates=coordinates,
            coordinate_mask=given,
            keys=torch.zeros(count, dtype=torch.int64),
            masks=torch.from_numpy(inputs["masks"][:, 0]),
            sample_ids=[f"{name}/{row}" for row in range(count)],
            token_mask=_padded([[True] * len(r["ids"]) for r in rows], False),
        )

    def points(self, kind: str, level: int, count: int, number: int) -> Tensor:
        """Recorded random points ``[count, number, 2]``: ``over`` or ``rand`` of loss level ``level``."""
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"points/{kind}/{level}".encode())))
        return torch.from_numpy(generator.random((count, number, 2), dtype=np.float32))

    def texts(self) -> list[dict[str, Any]]:
        """The instructions that the sets were made from, if they are recorded."""
        found: list[dict[str, Any]] = (
            self._json("texts.json") if (self.folder / "texts.json").is_file() else []
        )
        return found

    def _json(self, name: str) -> Any:
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{self.folder} is no fixture of the released code: {name} is missing")
        return json.loads(path.read_text())


def formula(name: str, entry: dict[str, Any]) -> NDArray[np.float32]:
    """The tensor of a salted name: normal numbers from the name's CRC-32, scaled as ``entry`` says."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8"))))
    values = generator.standard_normal(size=tuple(entry["shape"]))
    if entry["kind"] == "abs":
        values = np.abs(values)
    scaled: NDArray[np.float32] = (entry["mean"] + entry["scale"] * values).astype(np.float32)
    return scaled


def splice(inputs: Arrays, row: int, image_tokens: int) -> dict[str, list[Any]]:
    """One sequence with its placeholders replaced: ids, attention, image, instruction, labels."""
    source = inputs["input_ids"][row].tolist()
    labels = inputs["labels"][row].tolist()
    ids: list[int] = []
    targets: list[int] = []
    image: list[bool] = []
    instruction: list[bool] = []
    for token, label in zip(source, labels, strict=True):
        new, new_labels = [token], [label]
        if token == _SEG:
            continue
        if token == _IMAGE:
            new, new_labels = [0] * image_tokens, [_IGNORE] * image_tokens
        elif token == _REFER:
            new = inputs[f"token_refer_id_{row}"].tolist()
            new_labels = [_IGNORE] * len(new)
        elif token == _ANSWER:
            new = new_labels = inputs[f"token_answer_id_{row}"].tolist()
        ids += new
        targets += new_labels
        image += [token == _IMAGE] * len(new)
        instruction += [token == _REFER] * len(new)
    attention = [True] * (len(ids) - len(source)) + inputs["attention_mask"][row].tolist()
    return {
        "ids": ids,
        "attention": attention,
        "image": image,
        "instruction": instruction,
        "labels": targets,
    }


def _coordinates(rows: list[NDArray[Any]]) -> tuple[Tensor, Tensor]:
    """Boxes ``[1, 4]``, points ``[n, 2]`` (or padded to four numbers) and nothing ``[0, 4]``."""
    values = torch.zeros(len(rows), 6)
    given = torch.zeros(len(rows), 7, dtype=torch.bool)
    for row, found in enumerate(rows):
        if not len(found):
            continue
        is_box = found.shape == (1, 4) and bool(found[0, 2:].any())
        numbers = torch.from_numpy(found if is_box else found[:, :2]).flatten()
        values[row, : len(numbers)] = numbers
        given[row, : len(numbers)] = True
        given[row, 6] = is_box
    return values, given


def _padded(rows: list[list[Any]], fill: int | bool) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
