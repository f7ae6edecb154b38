"""Masks and pixels in the forms that a store keeps."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


def encode_mask(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """A mask as COCO compressed RLE with ASCII counts."""
    rle = coco.encode(np.asfortranarray(mask))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A lossless PNG of RGB pixels."""
    ok, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not ok:
        raise RuntimeError("the PNG encoder failed")
    return bytes(encoded.tobytes())
