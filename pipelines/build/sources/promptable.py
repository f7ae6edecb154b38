"""Masks from boxes by SAM or SAM 2 of ``transformers``, as SAMRS made its masks (arXiv 2305.02034).

Each box, upright around the object, is one prompt; the model answers with one mask. The weights are a folder
in Hugging Face layout (``config.json``, ``model.safetensors``, ``preprocessor_config.json``).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.building import BoxConfig
from unigeoseg.errors import UserError

Box = tuple[float, float, float, float]
_KINDS = ("sam", "sam2", "sam2_video")


class Segmenter:
    """A promptable model on one device.

    Args:
        folder: weights.
        device: of torch.
        boxes_at_once: prompts in one forward pass of the mask decoder.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: Path, device: str, boxes_at_once: int) -> None:
        import torch
        import transformers

        kind = _kind(folder)
        self.name = "sam" if kind == "sam" else "sam2"
        model, processor = (
            (transformers.SamModel, transformers.SamProcessor)
            if kind == "sam"
            else (transformers.Sam2Model, transformers.Sam2Processor)
        )
        try:
            self._model: Any = model.from_pretrained(folder, local_files_only=True).to(device).eval()
            self._processor: Any = processor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"boxes.model {folder} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
        self._torch, self._device, self._at_once = torch, device, boxes_at_once

    def masks(self, pixels: NDArray[np.uint8], boxes: Sequence[Box]) -> list[NDArray[np.bool_]]:
        """A mask ``[H, W]`` for each box of an image ``[H, W, 3]``; boxes x0, y0, x1, y1 in pixels."""
        torch, found = self._torch, []
        pixels = np.array(pixels)  # torch wants an array that it may write to
        with torch.inference_mode():
            first = self._processor(images=pixels, return_tensors="pt").to(self._device)
            features = self._model.get_image_embeddings(first["pixel_values"])
            for start in range(0, len(boxes), self._at_once):
                part = [[float(v) for v in box] for box in boxes[start : start + self._at_once]]
                inputs = self._processor(images=pixels, input_boxes=[part], return_tensors="pt").to(
                    self._device
                )
                output = self._model(
                    image_embeddings=features, input_boxes=inputs["input_boxes"], multimask_output=False
                )
                found += self._resize(output.pred_masks, inputs)
        return found

    def _resize(self, logits: Any, inputs: Any) -> list[NDArray[np.bool_]]:
        arguments = [logits.cpu(), inputs["original_sizes"].cpu()]
        if self.name == "sam":
            arguments.append(inputs["reshaped_input_sizes"].cpu())
        (masks,) = self._processor.post_process_masks(*arguments)
        return [np.asarray(mask[0], bool) for mask in masks]


def _kind(folder: Path) -> str:
    file = folder / "config.json"
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"boxes.model {folder}: no readable config.json; give a SAM or SAM 2 folder"
        ) from error
    if kind not in _KINDS:
        raise UserError(f"boxes.model {folder} is a {kind!r} model: give one of {', '.join(_KINDS)}")
    return str(kind)


@lru_cache(maxsize=1)
def _load(folder: str, device: str, boxes_at_once: int) -> Segmenter:
    if device == "cpu":
        import torch

        torch.set_num_threads(1)  # sums in one order, whatever the machine: the same masks with any workers
    return Segmenter(Path(folder), device, boxes_at_once)


def load_segmenter(config: BoxConfig) -> Segmenter:
    """The model of a configuration, once a process.

    Raises:
        UserError: it cannot be loaded.
    """
    return _load(str(Path(str(config.model)).expanduser()), config.device, config.boxes_at_once)


def weights_fingerprint(folder: str) -> str:
    """A hash of a model's configuration and weights.

    Raises:
        UserError: there is no such model.
    """
    path = Path(folder).expanduser()
    _kind(path)
    digest = hashlib.sha256()
    for file in sorted(f for f in path.iterdir() if f.suffix in (".json", ".safetensors", ".bin")):
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
