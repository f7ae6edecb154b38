"""Makes files in the layout of a table's source, from the YAML alone."""

import re
import warnings

import numpy as np
import rasterio
import rasterio.errors
import yaml
from PIL import Image

from pipelines.build.sources.table import TABLES

#: A text for each place of a pattern, by name; others get "x1".
TEXTS = {
    "name": "7",
    "n": "3",
    "tile": "2_10",
    "cut": "0_0_512_512",
    "domain": "D041_2019",
    "zone": "Z1_UU",
    "state": "de",
    "year": "2013",
    "part": "train",
    "area": "Urban",
    "city": "Nice",
    "suffix": "jpg",
    "more": "",
}


def raw_table(name):
    """The YAML of a shipped table."""
    return yaml.safe_load((TABLES / f"{name}.yaml").read_text())


def paths(layout, **texts):
    """Image and label path of a layout with its places filled in."""
    chosen = TEXTS | texts

    def put(match):
        name, regex = match[1], match[2]
        text = chosen.get(name, "x1")
        return (
            text if not regex or re.fullmatch(regex, text) else re.split(r"\|", regex)[0].replace(r"\d", "1")
        )

    def fill(pattern):
        return re.sub(r"\{([a-z_]+)(?::((?:[^{}]|\{[0-9,]*\})+))?\}", put, pattern)

    first = fill(layout["image"])
    spelt = {
        m[1]: put(m) for m in re.finditer(r"\{([a-z_]+)(?::((?:[^{}]|\{[0-9,]*\})+))?\}", layout["image"])
    }
    label = layout.get("mask") or layout["labels"]
    return first, re.sub(r"\{([a-z_]+)\}", lambda m: spelt[m[1]], label)


def write_image(file, values):
    """``[H, W]`` or ``[H, W, C]`` to a PNG, JPEG or TIFF, by the name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".tif", ".tiff"):
        write_tiff(file, values)
    else:
        Image.fromarray(values).save(file)


def write_tiff(file, values, **options):
    """``[H, W]`` or ``[H, W, C]`` to a TIFF."""
    bands = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            file,
            "w",
            driver="GTiff",
            count=len(bands),
            height=bands.shape[1],
            width=bands.shape[2],
            dtype=bands.dtype,
            **options,
        ) as data:
            data.write(bands)


def category_of(text):
    """ "25 Building" as 25, null as 0."""
    return int(str(text).split()[0]) if text is not None else 0


def colour_of(value):
    """ "#3C1098" or [60, 16, 152] as a tuple."""
    return tuple(bytes.fromhex(value[1:])) if isinstance(value, str) else tuple(value)
