"""Objects of training pictures pasted into others: exact on pixels and labels; all else of a store stays."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from pipelines.build.build import build_store
from pipelines.build.paste import Cutouts, pasted
from pipelines.build.process import regions_of
from pipelines.build.sources.base import SourceImage
from pipelines.config.building import BuildConfig, PasteConfig
from pipelines.curate.lint import lint_store
from pipelines.store.index import StoreIndex
from pipelines.store.reader import StoreReader
from tests.release_layouts import rrsisd
from unigeoseg.errors import UserError

SIDE = 96
#: How far from an object's mask its rim is blended: four standard deviations.
RIM = 4
CONFIG = BuildConfig()
PASTE = PasteConfig(copies=1, instances=(1, 4))


def picture(form, seed, radii=(4, 9)):
    """Disks of three categories on noise, told as regions, instances or categories of pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    numbers, kinds = np.zeros((SIDE, SIDE), np.int32), {}
    for number in range(1, 5):
        row, column, radius = [*rng.integers(12, SIDE - 12, 2).tolist(), int(rng.integers(*radii))]
        disk = ((y - row) ** 2 + (x - column) ** 2 <= radius**2) & (numbers == 0)
        if disk.sum() < 30:
            continue
        numbers[disk], kinds[number] = number, int(rng.choice([25, 10, 68]))
    if form == "instances":
        return SourceImage(pixels, numbers, kinds)
    labels = np.zeros_like(numbers)
    for number, kind in kinds.items():
        labels[numbers == number] = kind
    if form == "semantic":
        return SourceImage(pixels, labels)
    regions, _ = regions_of(SourceImage(pixels, numbers, kinds), CONFIG.rules)
    return SourceImage(pixels, np.zeros_like(numbers), regions=regions)


def cutouts_of(form, seeds, config=PASTE):
    found = Cutouts(config, np.random.default_rng(0))
    for seed in seeds:
        part = picture(form, seed)
        found.offer(part, regions_of(part, CONFIG.rules)[0])
    return found


def whole(region):
    return region.category_id, region.full(SIDE, SIDE) > 0


@pytest.mark.parametrize("form", ["regions", "instances", "semantic"])
@pytest.mark.parametrize("seed", range(6))
def test_objects_are_added_and_all_else_stays(form, seed):
    host, cutouts = picture(form, 100 + seed), cutouts_of(form, range(8))
    kept = host.pixels.copy(), host.labels.copy()
    found = pasted(host, cutouts, PASTE, np.random.default_rng(seed))
    assert found is not None and found.encoded is None
    assert np.array_equal(host.pixels, kept[0]) and np.array_equal(host.labels, kept[1])
    before = [whole(r) for r in regions_of(host, CONFIG.rules)[0]]
    after = [whole(r) for r in regions_of(found, CONFIG.rules)[0]]

    def among(one, others):
        return any(one[0] == kind and np.array_equal(one[1], mask) for kind, mask in others)

    new = [one for one in after if not among(one, before)]
    if form != "semantic":  # what was there is there, whole
        assert all(among(one, after) for one in before)
        assert 1 <= len(new) <= PASTE.instances[1]
        for _, mask in new:
            assert not any((ndimage.binary_dilation(mask) & old).any() for _, old in before)
    # Pixels and labels change at the new objects alone.
    labelled = found.labels != host.labels
    where = np.any([mask for _, mask in new], axis=0)
    if form == "semantic":  # what is left of a region that was partly covered is new as well
        where = labelled
    changed = (found.pixels != host.pixels).any(-1)
    assert changed.any()
    assert not changed[ndimage.distance_transform_edt(~where) > RIM].any()
    assert np.array_equal(labelled, where if form == "instances" else labelled & where)


def cropped(mask, pixels):
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return mask[window], pixels[window]


def test_an_object_looks_as_in_its_picture():
    """At its own size, it is an object of the donor in one of the eight views, but for its rim."""
    config = PasteConfig(copies=1, instances=(1, 1), scale=(1, 1))
    donor, host = picture("instances", 3, (7, 9)), picture("instances", 104)
    cutouts = Cutouts(config, np.random.default_rng(0))
    cutouts.offer(donor, regions_of(donor, CONFIG.rules)[0])
    views = [
        cropped(*(np.rot90(a[:, ::-1] if flip else a, turns) for a in (donor.labels == number, donor.pixels)))
        for number in donor.instances
        for flip in (False, True)
        for turns in range(4)
    ]
    looked = 0
    for seed in range(12):
        found = pasted(host, cutouts, config, np.random.default_rng(seed))
        new, pixels = cropped(found.labels == 1 + max(host.instances), found.pixels)
        inner = ndimage.distance_transform_edt(np.pad(new, 1))[1:-1, 1:-1] > RIM
        looked += bool(inner.any())
        assert any(
            np.array_equal(new, mask) and np.array_equal(pixels[inner], seen[inner]) for mask, seen in views
        )
    assert looked > 3


def test_a_category_of_pixels_is_not_joined_to_what_is_pasted():
    host, cutouts = picture("semantic", 7), cutouts_of("semantic", range(20, 30))
    for seed in range(20):
        found = pasted(host, cutouts, PASTE, np.random.default_rng(seed))
        for kind in (25, 10, 68):
            old, new = host.labels == kind, (found.labels == kind) & (host.labels != kind)
            assert not (ndimage.binary_dilation(new, np.ones((3, 3))) & old & (found.labels == kind)).any()


def test_only_whole_objects_of_a_fit_size_are_taken():
    config = PasteConfig(copies=1, min_area=0.01, max_area=0.05)
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[10:22, 10:22] = 1  # 144 of 9216 pixels: fits
    labels[30:34, 30:34] = 2  # too small
    labels[40:80, 40:80] = 3  # too large
    labels[84:96, 84:96] = 4  # cut by the edge
    part = SourceImage(np.zeros((SIDE, SIDE, 3), np.uint8), labels, dict.fromkeys(range(1, 5), 25))
    found = Cutouts(config, np.random.default_rng(0))
    found.offer(part, regions_of(part, CONFIG.rules)[0])
    assert len(found) == 1 and found[0].mask.sum() == 144 and found[0].mask.shape == (20, 20)


def test_what_is_held_is_bounded_and_drawn_from_all():
    found = cutouts_of("instances", range(200))
    assert len(found) == 256
    first = picture("instances", 0).pixels
    late = [one for one in (found[n] for n in range(256)) if not _holds(first, one.pixels)]
    assert len(late) > 128


def _holds(picture, part):
    h, w = part.shape[:2]
    return any(
        np.array_equal(picture[y : y + h, x : x + w], part)
        for y, x in np.argwhere((picture == part[0, 0]).all(-1)).tolist()
    )


def build(out, **paste):
    config = {"tile": {"size": SIDE, "stride": SIDE}, "workers": 0, "block_images": 8, "split": {"val": 0.25}}
    source = {"scenes": 24, "size": SIDE}
    settings = BuildConfig.model_validate(config | {"source": source, "paste": paste})
    build_store("synthetic", None, out, settings, progress=False)
    return StoreIndex.open_all(str(out), {})


def told(store):
    """By sample, what the store's own JSON says; and the split of each tile."""
    table = pq.read_table(Path(store) / "index.parquet").to_pylist()
    index = StoreIndex.open_all(str(store), {})
    reader = StoreReader(index)
    samples = {}
    for row in range(len(table)):
        loaded = reader.load([row])[0]
        sample = loaded.sample
        samples[sample.sample_id] = (
            sample.instruction,
            sample.answer,
            sample.box,
            sample.points,
            sample.mask.tobytes(),
            loaded.image.tobytes(),
        )
    return samples, {row["key"]: row["split"] for row in table}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pasted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.build.preview.write_previews", lambda index: None)
        build(folder / "plain")
        build(folder / "pasted", copies=2)
    return folder


def test_other_samples_of_a_store_stay_what_they_are(stores):
    (plain, _), (pasted_too, splits) = told(stores / "plain"), told(stores / "pasted")
    assert plain.items() <= pasted_too.items()
    new = pasted_too.keys() - plain.keys()
    assert len(new) > len(plain) / 2 and all("_pasted" in name for name in new)
    assert {split for key, split in splits.items() if "_pasted" in key} == {"train"}
    assert "val" in splits.values()


def test_pasted_tiles_hold_true_instructions(stores):
    report = lint_store(str(stores / "pasted"), progress=False)
    assert not report["errors"], report
    card = json.loads((stores / "pasted" / "dataset.json").read_text())
    tiles = next(stage for stage in card["stages"] if stage["name"] == "tile")
    assert tiles["noted"]["pasted"] > 20


def test_the_same_bytes_from_many_tasks_and_from_one(stores, tmp_path, no_sheets):
    build(tmp_path / "again", copies=2)
    for file in sorted((stores / "pasted" / "shards").iterdir()):
        assert (tmp_path / "again" / "shards" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("paste", "says"),
    [
        ({"instances": (0, 2)}, "two numbers from 1 on"),
        ({"instances": (4, 2)}, "the smaller first"),
        ({"scale": (2, 1)}, "the smaller first"),
        ({"min_area": 0.2, "max_area": 0.1}, "min_area 0.2 is above max_area 0.1"),
    ],
)
def test_ranges_that_are_none_are_refused(paste, says):
    with pytest.raises(ValueError, match=says):
        PasteConfig(**paste)


def test_an_endpoint_does_not_describe_pasted_tiles():
    with pytest.raises(ValueError, match=r"paste\.copies: pasted tiles are described by the embedded writer"):
        BuildConfig.model_validate({"paste": {"copies": 1}, "endpoint": {"model": "some"}})


def test_ready_instructions_are_refused(tmp_path):
    rrsisd(tmp_path / "release")
    config = BuildConfig.model_validate({"paste": {"copies": 1}, "workers": 0})
    with pytest.raises(UserError, match="has ready instructions"):
        build_store("rrsisd", tmp_path / "release", tmp_path / "store", config, progress=False)
