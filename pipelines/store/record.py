"""From the bytes of one image's tar fragment to decoded samples, and what makes a sample unusable."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from unigeoseg.samples.sample import Sample
from unigeoseg.samples.view import OTHER_TURNS
from unigeoseg.tasks import ABSENT, INTERACTIVE, REASONING

_NO_MEMBER = bytes(tarfile.BLOCKSIZE)
_JPEG = b"\xff\xd8\xff"
#: Kinds of a tar member that are files, and the mark of the form that Python's ``tarfile`` writes.
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_USTAR = b"ustar\x0000"


class BadRecord(ValueError):
    """Data that cannot be used.

    Attributes:
        reason: one word that is counted: ``unreadable_record``, ``unreadable_image``, ``image_size``,
            ``unreadable_mask``, ``mask_size``, ``empty_mask``, ``absent_mask``, ``coordinates``, ``text``.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions cross process borders by their arguments."""
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Fragment:
    """One image's members: the encoded image, and its JSON record."""

    image: bytes
    record: dict[str, Any]


def parse_fragment(data: bytes) -> Fragment:
    """Splits the bytes of a tar fragment.

    Raises:
        BadRecord: ``unreadable_record``, when there are not the two members or the JSON is damaged.
    """
    try:
        members = {name.rpartition(".")[2]: body for name, body in _members(data)}
        # Bytes that are not UTF-8 become lone surrogates here: only the sample that has them is refused.
        record = json.loads(members.pop("json").decode("utf-8", "surrogateescape"))
        (image,) = members.values()
    except (tarfile.TarError, KeyError, ValueError, EOFError, RecursionError) as error:
        raise BadRecord("unreadable_record", f"{type(error).__name__}: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("samples"), list):
        raise BadRecord("unreadable_record", "the JSON member is no image record")
    return Fragment(image, record)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and bodies of a tar fragment's files; plain headers without the cost of a ``TarFile``."""
    at = 0
    while at + tarfile.BLOCKSIZE <= len(data):
        header = data[at : at + tarfile.BLOCKSIZE]
        if header == _NO_MEMBER:
            return
        plain = _plain_header(header)
        if plain is None:  # long names and the like, or damage
            with tarfile.open(fileobj=io.BytesIO(data[at:]), mode="r:") as tar:
                for member in tar:
                    if (file := tar.extractfile(member)) is not None:
                        yield member.name, file.read()
            return
        name, size = plain
        at += tarfile.BLOCKSIZE
        if at + size > len(data):
            raise EOFError(f"{name} is cut short")
        yield name, data[at : at + size]
        at += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _plain_header(header: bytes) -> tuple[str, int] | None:
    """Name and size that a plain file's ustar header gives; ``None``: it is of another kind, or damaged."""
    if header[156:157] not in _REGULAR or header[257:265] != _USTAR:
        return None
    try:
        size, checksum = int(header[124:135], 8), int(header[148:154], 8)
    except ValueError:
        return None
    if size < 0 or checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        return None
    name, prefix = (part.partition(b"\0")[0] for part in (header[:100], header[345:500]))
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape"), size


def decode_image(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """An encoded PNG or JPEG as uint8 RGB ``[height, width, 3]``.

    Raises:
        BadRecord: ``unreadable_image`` or ``image_size``.
    """
    image: Any = None
    if data[:3] == _JPEG:
        try:
            # The same library and pixels as OpenCV's, in three quarters of the time.
            image = simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:  # damaged, or a kind that it does not know: OpenCV decides
            image = None
    if image is None:
        image = _opencv(data)
    if image.shape != (height, width, 3):
        raise BadRecord("image_size", f"the image is {image.shape[:2]}, its record says {(height, width)}")
    pixels: NDArray[np.uint8] = image
    return pixels


def _opencv(data: bytes) -> Any:
    # The mask is drawn on the stored pixels, so an EXIF orientation must not turn them.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadRecord("unreadable_image", str(error).strip()) from error
    if image is None:
        raise BadRecord("unreadable_image", f"{len(data)} bytes that are no complete PNG or JPEG")
    return image


def decode_mask(rle: Any, height: int, width: int) -> NDArray[np.uint8]:
    """A COCO compressed RLE as uint8 ``[height, width]`` of 0 and 1.

    Raises:
        BadRecord: ``unreadable_mask`` or ``mask_size``.
    """
    try:
        size, counts = [int(v) for v in rle["size"]], rle["counts"].encode("ascii")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadRecord("unreadable_mask", f"no COCO RLE: {error!r}") from error
    if size != [height, width]:
        raise BadRecord("mask_size", f"the mask is {size}, the image {[height, width]}")
    runs = _runs(counts)
    if runs is None or int(runs.sum()) != height * width:
        raise BadRecord("unreadable_mask", f"the runs do not add up to {height} x {width} pixels")
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    # Ten times as fast as pycocotools, whose loop goes pixel by pixel. Runs go down the columns;
    # cv2.transpose makes rows of them several times faster than numpy does.
    mask: NDArray[np.uint8] = cv2.transpose(np.repeat(values, runs).reshape(width, height))
    return mask


def _runs(counts: bytes) -> NDArray[np.int64] | None:
    """Lengths of a compressed RLE's runs (``None``: malformed); format of COCO's maskApi.c."""
    chars = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(chars) or chars.min() < 0 or chars.max() > 63 or chars[-1] & 32:
        return None
    ends = np.flatnonzero((chars & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(chars)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 6:
        return None
    values = np.add.reduceat((chars & 31) << (5 * places), starts)
    # The last character's bit 4 is the sign.
    values -= (chars[ends] >> 4 & 1) << (5 * (ends - starts + 1))
    # From the fourth run on, each is stored as the difference from the one before the last.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs if runs.min() >= 0 else None


def decode_sample(
    record: dict[str, Any], place: int, height: int, width: int, mask_area: int | None = None
) -> Sample:
    """The sample number ``place`` of an image's record, its mask decoded and everything checked.

    Args:
        record: the JSON member of the image.
        place: position in its ``samples``.
        height: of the image.
        width: of the image.
        mask_area: what the index promises; 0 lets a reasoning sample without target pass. Absent ones
            have none anyway.

    Raises:
        BadRecord: with the reason.
    """
    try:
        raw = record["samples"][place]
        sample_id, task = str(raw["sample_id"]), str(raw["task"])
    except (LookupError, TypeError) as error:
        raise BadRecord("unreadable_record", f"no sample {place}: {error!r}") from error
    texts = [_text(raw.get(name, ""), name) for name in ("instruction", "answer")]
    if not texts[0].strip():
        raise BadRecord("text", "the instruction is empty")
    box, points = _coordinates(raw)
    if task == INTERACTIVE and box is None and points is None:
        raise BadRecord("coordinates", "an interactive sample needs a box or points")
    mask = decode_mask(raw.get("mask"), height, width)
    absent = raw.get("subtask") == ABSENT and task != INTERACTIVE
    if absent and mask.any():
        raise BadRecord("absent_mask", "the target is said to be absent, and the mask has pixels")
    if not mask.any() and not absent and (mask_area != 0 or task != REASONING):
        raise BadRecord("empty_mask", "the mask has no pixel")
    return Sample(
        sample_id=sample_id,
        task=task,
        subtask=str(raw.get("subtask") or "none"),
        instruction=texts[0],
        answer=texts[1],
        mask=mask,
        box=box,
        points=points,
        category_id=int(raw.get("category_id") or 0),
        category=str(raw.get("category") or ""),
        source=str(record.get("source", "")),
        views=_views(raw.get("views")),
    )


def _views(value: Any) -> tuple[tuple[str, str] | None, ...]:
    """Instruction and answer for each other view, where a record has them."""
    if not value:
        return ()
    try:
        pairs = [
            None
            if one is None
            else tuple(_text(one.get(name, ""), name) for name in ("instruction", "answer"))
            for one in value
        ]
    except (TypeError, AttributeError) as error:
        raise BadRecord("text", f"the views are no texts: {error}") from error
    if len(pairs) != len(OTHER_TURNS) or any(pair is not None and not pair[0].strip() for pair in pairs):
        raise BadRecord("text", f"a sample has {len(OTHER_TURNS)} other views, each with a text or none")
    return tuple(None if pair is None else (pair[0], pair[1]) for pair in pairs)


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecord("text", f"the {name} is no text but {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord("text", f"the {name} is not UTF-8: {error.reason}") from error
    return value


def _coordinates(
    raw: dict[str, Any],
) -> tuple[tuple[float, float, float, float] | None, tuple[tuple[float, float], ...] | None]:
    """Box and points of a raw sample, inside [0, 1]."""
    try:
        box = None if raw.get("box") is None else tuple(float(v) for v in raw["box"])
        points = None if not raw.get("points") else tuple((float(x), float(y)) for x, y in raw["points"])
    except (TypeError, ValueError) as error:
        raise BadRecord("coordinates", f"not numbers: {error}") from error
    if box is not None and (len(box) != 4 or box[0] > box[2] or box[1] > box[3]):
        raise BadRecord("coordinates", f"the box {box} is not x0, y0, x1, y1")
    if points is not None and len(points) > 3:
        raise BadRecord("coordinates", f"{len(points)} points, at most three are used")
    for value in (*(box or ()), *(v for point in points or () for v in point)):
        if not 0 <= value <= 1:
            raise BadRecord("coordinates", f"{value} lies outside [0, 1]")
    return box, points
