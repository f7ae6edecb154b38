"""A real small model on a real small store, recomputed independently from what was saved."""

import io
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from pipelines.evaluate.evaluate import evaluate_store, write_evaluation
from pipelines.evaluate.measures import mean_ci95, measure_tasks
from pipelines.evaluate.models import ModelSource, find_export
from pipelines.evaluate.worker import EvalJob
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from unigeoseg.errors import UserError
from unigeoseg.export import load_export
from unigeoseg.metrics import bootstrap_ci95


def _truths(store):
    """Truth masks by sample id, read with nothing of ours; the store's images are letterboxed to 64."""
    found = {}
    for row in pq.read_table(f"{store}/index.parquet").to_pylist():
        with Path(store, row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            data = file.read(row["nbytes"])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            (member,) = [m for m in tar.getmembers() if m.name.endswith(".json")]
            sample = json.load(tar.extractfile(member))["samples"][row["n"]]
        rle = sample["mask"]
        found[row["sample_id"]] = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()})
    return found


def _letterboxed(mask, size=64):
    """Nearest neighbour into the middle of a square, by index arithmetic alone."""
    height, width = mask.shape
    inner = (size, int(width * size / height)) if height >= width else (int(height * size / width), size)
    rows = np.minimum((np.arange(inner[0]) * (height / inner[0])).astype(int), height - 1)
    columns = np.minimum((np.arange(inner[1]) * (width / inner[1])).astype(int), width - 1)
    square = np.zeros((size, size), bool)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    square[top : top + inner[0], left : left + inner[1]] = mask[rows][:, columns] > 0
    return square


def test_saved_files_agree_with_an_independent_computation(evaluation, store, tmp_path):
    write_evaluation(evaluation, str(tmp_path), save_predictions=True)
    result = json.loads((tmp_path / "evaluation.json").read_text())
    rows = pq.read_table(tmp_path / "per_sample.parquet").to_pylist()
    truths = _truths(store)
    assert [r["sample_id"] for r in rows] == list(truths)  # all samples, in store order
    values = {}
    for row in rows:
        rle = {"size": row["size"], "counts": row["prediction"].encode()}
        prediction, truth = coco_mask.decode(rle) > 0, _letterboxed(truths[row["sample_id"]])
        assert row["size"] == [64, 64]
        inter, union = int((prediction & truth).sum()), int((prediction | truth).sum())
        assert (row["intersection"], row["union"], row["truth_area"]) == (inter, union, truth.sum())
        assert row["iou"] == (1.0 if union == 0 else inter / (union + 1e-5))
        values.setdefault(row["task"], []).append((inter, union, row["iou"]))
    assert set(values) == set(result["tasks"]) == {"interactive", "referring", "reasoning"}
    for task, triples in values.items():
        inter, union, ious = zip(*triples, strict=True)
        got = result["tasks"][task]
        assert got["n"] == len(ious)
        assert got["gIoU"] == pytest.approx(math.fsum(ious) / len(ious), abs=1e-15)
        assert got["cIoU"] == sum(inter) / (sum(union) + 1e-10)
        assert got["Pr@0.5"] == sum(v > 0.5 for v in ious) / len(ious)
        low, high = got["ci95"]["gIoU"]
        assert low <= got["gIoU"] <= high
    assert result["overall"]["n"] == len(rows) and result["image_size"] == 64
    assert result["unusable"] == []
    assert f"| {got['n']} | {got['gIoU']:.3f} |" in (tmp_path / "evaluation.md").read_text()


def test_predictions_are_left_out_unless_asked_for(evaluation, tmp_path):
    write_evaluation(evaluation, str(tmp_path), save_predictions=False)
    names = pq.read_schema(tmp_path / "per_sample.parquet").names
    assert "prediction" not in names
    assert {"sample_id", "task", "source", "category_id", "intersection", "union", "iou"} <= set(names)


def test_model_in_memory_gives_the_same(evaluation, store, export):
    found = evaluate_store(EvalJob(store, "val", ModelSource(export)), images=5, loaded=load_export(export))
    assert found.table["intersection"].to_pylist() == evaluation.table["intersection"].to_pylist()
    assert found.result == evaluation.result


def test_measures(evaluation):
    measures = measure_tasks(evaluation, seed=0)
    frame = evaluation.table.to_pandas()
    for task, m in measures.items():
        part = frame[frame.task == task]
        assert m["n"] == len(part)
        for key, column in (("untrained_gIoU", "untrained_iou"), ("category_gIoU", "category_iou")):
            assert m[key] == pytest.approx(part[column].mean(), abs=1e-12)
        twins = part[part.swapped_iou.notna()]
        assert m["swap_n"] == len(twins)
        if len(twins):
            assert m["swap_own_gIoU"] == pytest.approx(twins.iou.mean())
            assert m["swapped_gIoU"] == pytest.approx(twins.swapped_iou.mean())
            low, high = m["swap_drop_ci95"]
            assert low <= m["swap_own_gIoU"] - m["swapped_gIoU"] <= high
    assert measures["interactive"]["filled_box_gIoU"] == pytest.approx(1, abs=1e-5)  # blocks are boxes
    assert measures["reasoning"]["swapped_gIoU"] is None  # one reasoning sample an image
    assert "filled_box_gIoU" not in measures["referring"]
    json.dumps(measures, allow_nan=False)


def test_untrained_model_is_another_and_seeded(export):
    first, again, trained = (ModelSource(export, s).load()[0].state_dict() for s in (5, 5, None))
    name = "query.bias" if "query.bias" in first else next(n for n in first if first[n].std() > 0)
    assert first[name].equal(again[name]) and not first[name].equal(trained[name])


def test_unusable_samples_are_named_not_dropped_silently(tmp_path, export):
    def damage(i, encoded, record):
        if i == 0:
            return encoded[: len(encoded) // 3]
        if i == 1:
            record["samples"][0]["mask"]["size"] = [3, 3]
        return None

    store = write_store(tmp_path / "store", images=4, split="val", damage=damage)
    found = evaluate_store(EvalJob(str(store), "val", ModelSource(export)))
    reasons = {u["sample_id"]: u["reason"] for u in found.result["unusable"]}
    assert reasons.pop("tiny/img_0001/interactive/0") == "mask_size"
    assert reasons and all("img_0000" in name for name in reasons)
    counts = found.result["samples"]
    assert counts["evaluated"] + len(found.result["unusable"]) == counts["chosen"] == counts["split"]


def test_nothing_usable_is_an_error(tmp_path, export):
    store = write_store(tmp_path / "s", images=2, split="val", damage=lambda i, encoded, record: b"no image")
    with pytest.raises(UserError, match="none of the"):
        evaluate_store(EvalJob(str(store), "val", ModelSource(export)))


def test_find_export(export, tmp_path):
    assert find_export(export) == export
    with pytest.raises(UserError, match=r"no model at .*no such folder"):
        find_export(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json"):
        find_export(tmp_path)


def test_intervals_resample_scenes(evaluation, store):
    """Tiles of a scene are drawn together, as an independent grouping of the index says."""
    rows = pq.read_table(f"{store}/index.parquet").to_pylist()
    names = [(row["source"], row["scene"]) for row in rows]
    assert len(set(names)) < len({row["key"] for row in rows})  # several images a scene
    table = evaluation.table
    inter, union = table["intersection"].to_numpy(), table["union"].to_numpy()
    groups = [sorted(set(names)).index(name) for name in names]
    assert evaluation.result["overall"]["ci95"] == bootstrap_ci95(inter, union, groups)
    assert evaluation.result["scenes"] == len(set(names))
    assert "over scenes" in evaluation.result["conventions"]


def test_scenes_of_the_same_name_in_two_sources_are_two(store):
    index = StoreIndex.open(store, "val")
    other = pa.array([f"other{i % 2}" for i in range(len(index))])
    both = index.table.set_column(index.table.column_names.index("source"), "source", other)
    scenes = StoreIndex(store, "val", both, {}).scenes
    pairs = list(zip(other.to_pylist(), both["scene"].to_pylist(), strict=True))
    numbers = {}
    assert all(numbers.setdefault(pair, number) == number for pair, number in zip(pairs, scenes, strict=True))
    assert len(set(numbers.values())) == len(set(pairs))
    bare = StoreIndex(store, "val", index.table.drop_columns(["scene"]), {})
    assert (bare.scenes == index.images).all()


def test_mean_ci95_of_constant_values():
    assert mean_ci95(np.full(9, 0.25), np.arange(9) // 2, seed=0) == [0.25, 0.25]


def test_another_threshold_gives_what_was_foretold(evaluation, store, export):
    """The best threshold's gIoU, as told beside the usual evaluation, is what an evaluation with it gives."""
    told = evaluation.result["threshold"]
    assert told["used"] == 0.5

    def reached(threshold):
        job = EvalJob(store, "val", ModelSource(export), threshold=threshold)
        tasks = evaluate_store(job, images=5).result["tasks"]
        return {task: found["gIoU"] for task, found in tasks.items()}

    assert reached(told["best"]) == pytest.approx(told["gIoU"], abs=1e-12)
    assert np.mean(list(reached(0.3).values())) <= np.mean(list(told["gIoU"].values())) + 1e-12
    with pytest.raises(ValueError, match="no probability"):
        EvalJob(store, "val", ModelSource(export), threshold=1.0)


def test_empty_and_full_predictions_are_counted(evaluation):
    masks = [
        coco_mask.decode({"size": row["size"], "counts": row["prediction"].encode()})
        for row in evaluation.predictions.take(evaluation.table["row"].to_numpy()).to_pylist()
    ]
    shares = np.array([mask.mean() for mask in masks])
    overall = evaluation.result["overall"]
    assert overall["empty"] == pytest.approx((shares == 0).mean())
    assert overall["full"] == pytest.approx((shares >= 0.99).mean())
