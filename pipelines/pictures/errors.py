"""What is wrong with a file of pixels, in one kind of error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio.errors
from PIL import Image, UnidentifiedImageError

from unigeoseg.errors import UserError


class UnusableImage(UserError):
    """An image that cannot be used: counted and named, borne up to ``BuildConfig.max_bad_share``.

    Attributes:
        reason: short and countable, such as ``unreadable_image``.
        where: the file, or the item's key.
        detail: what is wrong, and the way out.
    """

    def __init__(self, reason: str, where: str, detail: str) -> None:
        self.reason, self.where, self.detail = reason, where, detail
        super().__init__(f"{where}: {detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions cross process borders by their arguments."""
        return type(self), (self.reason, self.where, self.detail)


@contextmanager
def damage(where: str, what: str) -> Iterator[None]:
    """Turns what the readers raise into one kind of error that names the file.

    Args:
        where: the file.
        what: "image" or "mask".

    Raises:
        UnusableImage: ``missing_<what>``, ``huge_<what>`` or ``unreadable_<what>``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except UnusableImage:
        raise
    except FileNotFoundError as error:
        raise UnusableImage(f"missing_{what}", where, f"there is no such {what}") from error
    except IsADirectoryError as error:
        raise UnusableImage(f"unreadable_{what}", where, f"the {what} is a folder, not a file") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"huge_{what}", where, str(error)) from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        rasterio.errors.RasterioError,
    ) as error:
        detail = str(error).replace(where, "it").strip() or type(error).__name__
        raise UnusableImage(
            f"unreadable_{what}", where, f"the {what} cannot be read ({detail}): replace or remove it"
        ) from error
