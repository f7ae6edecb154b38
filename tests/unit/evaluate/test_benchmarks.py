"""A real small model on benchmark folders: every convention recomputed, killed and resumed, bad input."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools import mask as coco_mask

import pipelines.evaluate.evaluate as evaluate_module
from pipelines.evaluate.command import evaluate_command
from pipelines.evaluate.data import choose_data
from pipelines.evaluate.evaluate import evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.published import read_published
from pipelines.evaluate.resume import PARTIAL, forget_portions
from pipelines.evaluate.worker import EvalJob, Worker
from tests.release_layouts import LAYOUTS, SHAPES, block, dior_rsvg, refsegrs
from tests.tiny_store import write_store
from unigeoseg.errors import UserError
from unigeoseg.export import load_export
from unigeoseg.samples.letterbox import letterbox_mask

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("refsegrs")
    refsegrs(path, images=7)
    return path


def job_of(folder, export, layout="refsegrs", **options):
    return EvalJob(str(folder), "test", ModelSource(export), keep_predictions=True, layout=layout, **options)


def rows_of(evaluation, tmp_path):
    write_evaluation(evaluation, str(tmp_path), save_predictions=True)
    return pq.read_table(tmp_path / "per_sample.parquet").to_pylist()


def decoded(row):
    return coco_mask.decode({"size": row["size"], "counts": row["prediction"].encode()}) > 0


def inner(shape):
    """First and last row and column that an image of this shape covers in the square."""
    height, width = shape
    tall = SIZE if height >= width else int(height * SIZE / width)
    wide = SIZE if width >= height else int(width * SIZE / height)
    top, left = (SIZE - tall) // 2, (SIZE - wide) // 2
    return slice(top, top + tall), slice(left, left + wide)


@pytest.mark.parametrize("compare", ["letterbox", "inside", "original"])
def test_counts_of_each_convention_by_brute_force(compare, folder, export, tmp_path):
    rows = rows_of(evaluate_store(job_of(folder, export, compare=compare), images=3), tmp_path)
    assert len(rows) == 7
    padding = 0
    for i, row in enumerate(rows):
        truth, prediction = block(i) > 0, decoded(row)
        assert (row["height"], row["width"]) == SHAPES[i % 3]
        assert row["truth_share"] == truth.mean()
        if compare != "original":
            truth = letterbox_mask(block(i), SIZE) > 0
            outside = prediction.copy()
            outside[inner(SHAPES[i % 3])] = False
            padding += int(outside.sum())
        assert prediction.shape == truth.shape
        inter = union = 0
        for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
            inter, union = inter + (p and t), union + (p or t)
        assert (row["intersection"], row["union"]) == (inter, union)
    # the model of random weights paints the padding: it counts as wrong as released, and not when excluded
    assert (padding > 0) == (compare == "letterbox")


def test_original_size_is_the_resized_logit_map(folder, export, tmp_path):
    """The prediction at original size, from the raw logits with torch's own resizing."""
    rows = rows_of(evaluate_store(job_of(folder, export, compare="original"), images=1), tmp_path)
    model, _ = load_export(export)
    worker = Worker(job_of(folder, export, compare="original"))
    for i, row in enumerate(rows[:3]):
        images, _ = worker._read(np.array([i]))
        batch = worker._collator(
            [type("G", (), {"image": images[0].pixels, "samples": tuple(s for s in images[0].samples)})()]
        )
        logits = model.predict(batch)[0][inner(SHAPES[i])]
        resized = torch.nn.functional.interpolate(logits[None, None], SHAPES[i], mode="bilinear")[0, 0]
        clear = resized.abs() > 1e-3 * logits.abs().max()
        assert clear.float().mean() > 0.98
        np.testing.assert_array_equal(decoded(row)[clear], (resized > 0).numpy()[clear])


def flood_box(mask):
    """Box of the largest 8-connected component by flood fill, independent of OpenCV."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    best: list = []
    for start in sorted(left):
        if start not in left:
            continue
        stack, found = [start], []
        left.discard(start)
        while stack:
            y, x = stack.pop()
            found.append((y, x))
            for near in [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
                if near in left:
                    left.discard(near)
                    stack.append(near)
        if len(found) > len(best):
            best = found
    if not best:
        return set()
    (y0, x0), (y1, x1) = np.min(best, axis=0), np.max(best, axis=0)
    return {(y, x) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)}


def test_boxes_of_visual_grounding_by_brute_force(export, tmp_path):
    dior_rsvg(tmp_path / "data")
    choice = choose_data(str(tmp_path / "data"))
    assert (choice.layout, choice.split, choice.boxes) == ("dior-rsvg", "test", True)
    evaluation = evaluate_store(job_of(tmp_path / "data", export, "dior-rsvg", boxes=True))
    rows = rows_of(evaluation, tmp_path)
    for row in rows:
        k = int(row["sample_id"][-1]) if "00002" in row["sample_id"] else int("00001" in row["sample_id"])
        mask = np.zeros((row["height"], row["width"]), np.uint8)
        mask[5:17, 4 + k : 20 + k] = 1
        truth, found = flood_box(letterbox_mask(mask, SIZE)), flood_box(decoded(row))
        assert (row["intersection"], row["union"]) == (len(truth & found), len(truth | found))
    task = evaluation.result["tasks"]["referring"]
    assert [key for key in task if key.startswith("Pr@")] == ["Pr@0.3", "Pr@0.5", "Pr@0.7"]
    assert task["Pr@0.3"] == sum(row["iou"] > 0.3 for row in rows) / len(rows)


def test_groups_add_up_and_sizes_are_by_share(folder, export, tmp_path):
    evaluation = evaluate_store(job_of(folder, export))
    rows, result = rows_of(evaluation, tmp_path), evaluation.result
    for group in ("sizes", "categories", "sources", "subtasks", "tasks"):
        assert sum(m["n"] for m in result[group].values()) == len(rows)
    share = [(row["truth_share"], row["iou"]) for row in rows]
    named = {"2 to 10 %": (0.02, 0.1), "10 % and more": (0.1, 2)}
    for name, m in result["sizes"].items():
        low, high = named[name]
        values = [v for s, v in share if low <= s < high]
        assert m["n"] == len(values) and m["gIoU"] == pytest.approx(
            math.fsum(values) / len(values), abs=1e-15
        )


def test_a_killed_evaluation_goes_on_where_it_stopped(folder, export, tmp_path, monkeypatch):
    out, job = tmp_path / "out", job_of(folder, export)
    whole = rows_of(evaluate_store(job, images=2), tmp_path / "whole")
    run, seen = evaluate_module.run_here, []

    def dying(job, parts, index, loaded=None):
        for portion in run(job, parts, index, loaded):
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(portion.number)
            yield portion

    monkeypatch.setattr(evaluate_module, "run_here", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_store(job, images=2, resume=str(out))
    kept = sorted((out / PARTIAL).rglob("*.parquet"))
    assert len(kept) == 2
    kept[1].write_bytes(kept[1].read_bytes()[:50])  # cut off: counts as not there

    def counting(job, parts, index, loaded=None):
        seen.extend(number for number, _ in parts)
        return run(job, parts, index, loaded)

    monkeypatch.setattr(evaluate_module, "run_here", counting)
    seen.clear()
    evaluation = evaluate_store(job, images=2, resume=str(out))
    assert seen == [1, 2, 3]
    assert rows_of(evaluation, out) == whole
    assert not (out / PARTIAL).exists()
    (out / PARTIAL / "mine").mkdir(parents=True)  # a folder of somebody else's of that name
    (out / PARTIAL / "mine/notes.txt").write_text("x")
    forget_portions(str(out))
    assert (out / PARTIAL / "mine/notes.txt").read_text() == "x"
    # another setting is another evaluation
    evaluate_store(job_of(folder, export, compare="inside"), images=2, resume=str(out))
    assert seen == [1, 2, 3, 0, 1, 2, 3]


def test_command_writes_everything(export, tmp_path):
    LAYOUTS["geoselect"](tmp_path / "data")
    rows = [{"layout": "geoselect", "method": "somebody", "metrics": {"gIoU": 0.5}, "source": "a table"}]
    (tmp_path / "more.yaml").write_text(json.dumps({"rows": rows}))
    out = tmp_path / "out"
    result = evaluate_command(
        export, str(tmp_path / "data"), out=str(out), published=str(tmp_path / "more.yaml")
    )
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    plots = {f"plots/{name}.png" for name in ("iou", "categories", "sizes", "samples-referring")}
    assert names == {"evaluation.json", "evaluation.md", "per_sample.parquet"} | plots
    assert json.loads((out / "evaluation.json").read_text()) == result
    assert [row["metrics"]["gIoU"] for row in result["published"]["rows"]] == [0.5, pytest.approx(0.6)]
    text = (out / "evaluation.md").read_text()
    assert "| all: somebody |  | 0.500 |" in text and "Table 5" in text
    assert "prediction" not in pq.read_schema(out / "per_sample.parquet").names


def test_real_cases_and_rrsisd_work_as_they_lie_there(shared, export, tmp_path):
    cases = evaluate_command(export, str(shared / "data/geoselect_cases"), out=str(tmp_path), plots=False)
    assert cases["overall"]["n"] == 45 and cases["tasks"].keys() == {"referring"}
    assert cases["sources"]["RRSIS-D"]["n"] == 30 and cases["unusable"] == []
    layout = str(shared / "data/rrsisd_layout")
    results = {name: evaluate_command(export, layout, split=name) for name in ("train", "val", "all")}
    assert {name: r["overall"]["n"] for name, r in results.items()} == {"train": 24, "val": 6, "all": 30}
    assert evaluate_command(export, layout)["split"] == "val"
    # the same images, sentences and masks in two layouts
    for key in ("gIoU", "cIoU"):
        assert results["all"]["overall"][key] == pytest.approx(cases["sources"]["RRSIS-D"][key], abs=1e-3)


def test_data_that_do_not_fit_the_model_are_told(export, tmp_path, caplog):
    refsegrs(tmp_path, images=1)
    big = np.zeros((700, 700), np.uint8)
    big[300, 300] = 255  # one pixel of 490,000: gone at 64 x 64
    assert cv2.imwrite(str(tmp_path / "images/0.tif"), np.zeros((700, 700, 3), np.uint8))
    assert cv2.imwrite(str(tmp_path / "masks/0.tif"), big)
    result = evaluate_store(job_of(tmp_path, export)).result
    assert result["vanished"] == 1 and "--compare original" in caplog.text
    assert evaluate_store(job_of(tmp_path, export, compare="original")).result["vanished"] == 0
    store = write_store(tmp_path / "store", images=2, split="val")
    result = evaluate_store(EvalJob(str(store), "val", ModelSource(export))).result
    assert result["foreign_categories"] == ["1 Building (here Impervious Surface)"]
    assert "another taxonomy" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "val"}, r"has no split 'val': it has \['test'\]"),
        ({"layout": "rrsisd"}, "does not have the layout rrsisd"),
        ({"published": "/no/such.yaml"}, "cannot be read"),
        ({"data": "/no/such/folder"}, "no such folder"),
    ],
)
def test_bad_input(change, message, folder, export):
    with pytest.raises(UserError, match=message):
        evaluate_command(**{"model": export, "data": str(folder), **change})


def test_a_folder_without_a_layout_and_an_empty_split(export, tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UserError, match=r"neither a store .* nor a benchmark .* rrsisd"):
        evaluate_command(export, str(tmp_path))
    refsegrs(tmp_path / "data")
    (tmp_path / "data/output_phrase_val.txt").write_text("\n")
    with pytest.raises(UserError, match="no samples in split 'val'"):
        evaluate_command(export, str(tmp_path / "data"), split="val")


def test_published_rows_are_checked(tmp_path):
    row = {"layout": "rrsisd", "method": "x", "metrics": {"gIoU": 64.2}, "source": "y"}
    path = Path(tmp_path / "p.yaml")
    path.write_text(json.dumps({"rows": [row]}))
    with pytest.raises(UserError, match="divide percent by 100"):
        read_published(path)
    path.write_text(json.dumps({"rows": [row | {"metric": 1}]}))
    with pytest.raises(UserError, match="rows"):
        read_published(path)
