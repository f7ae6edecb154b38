"""Masks and pixels in the forms that a store keeps."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from pipelines.labels.regions import Region


def encode_mask(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask ``[H, W]`` as COCO compressed RLE with ASCII counts."""
    return encode_crop(mask, 0, 0, *mask.shape)


def encode_region(region: Region, height: int, width: int) -> dict[str, Any]:
    """The same of a region of a tile of that size."""
    return encode_crop(region.crop, region.y0, region.x0, height, width)


def encode_crop(crop: NDArray[Any], top: int, left: int, height: int, width: int) -> dict[str, Any]:
    """The same of a mask that is empty outside ``crop``; only the columns of the crop are looked at.

    Args:
        crop: bool or 0/1 ``[h, w]``, at least a pixel.
        top: row of the mask where it begins.
        left: column where it begins.
        height: of the mask.
        width: of the mask.
    """
    columns = np.zeros((crop.shape[1], height), bool)  # RLE goes down the columns
    columns[:, top : top + crop.shape[0]] = crop.T
    flat = columns.ravel()
    # Where a run begins, from the first of ones on, counted from the crop's first column.
    begins = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    first, last = -left * height, (width - left) * height
    edges = np.concatenate(([first], begins[begins < last], [last]))
    rle = coco.frPyObjects({"size": [height, width], "counts": np.diff(edges)}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


#: Each pixel less the one above it: imagery takes 3 to 8 % less room than with OpenCV's own choice (less the
#: one to the left), in no more time.
_PNG = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A lossless PNG of RGB pixels."""
    ok, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _PNG)
    if not ok:
        raise RuntimeError("the PNG encoder failed")
    return bytes(encoded.tobytes())
