"""An evaluation holds no prediction in memory, and reads again those that it draws."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate import evaluate as evaluating
from pipelines.evaluate.data import open_reader
from pipelines.evaluate.evaluate import write_evaluation
from pipelines.evaluate.predictions import Predictions
from pipelines.evaluate.records import SCHEMA, decode_mask, encode_mask
from pipelines.evaluate.sheets import examples, pick_rows


def portions(number, each, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(number * each).reshape(number, each)
    masks = {int(row): rng.random((6, 7)) < 0.4 for row in rows.ravel()}
    for part in rows:
        records = [{"row": int(row)} | encode_mask(masks[int(row)]) for row in part]
        yield masks, pa.Table.from_pylist(records, schema=SCHEMA)


def test_predictions_come_back_in_the_order_asked_for():
    kept, masks = Predictions(), {}
    for found, table in portions(9, 5):
        masks |= found
        kept.add(table)
    wanted = np.random.default_rng(1).permutation(45)[:20].tolist()
    rows = kept.take(wanted).to_pylist()
    for row, found in zip(wanted, rows, strict=True):
        np.testing.assert_array_equal(decode_mask(found["prediction"], found["size"]), masks[row])
    assert kept.reads <= 9
    assert kept.take([]).num_rows == 0
    with pytest.raises(KeyError):
        kept.take([45])


def test_the_table_of_an_evaluation_holds_none(evaluation):
    assert not {"prediction", "size"} & set(evaluation.table.column_names)


def test_a_sheet_reads_no_more_portions_than_it_shows_samples(evaluation):
    before, reader = evaluation.predictions.reads, open_reader(evaluation.index)
    shown = examples(evaluation.table, evaluation.predictions, "referring", reader, 64)
    assert 0 < evaluation.predictions.reads - before <= 12
    part = evaluation.table.filter(pa.compute.field("task") == "referring")
    images = evaluation.index.images[part["row"].to_numpy()].tolist()
    rows = [part["row"][place].as_py() for _, place in pick_rows(part["iou"].to_pylist(), images)]
    for example, row in zip(shown, rows, strict=True):
        (mask,) = evaluation.predictions.take([row]).to_pylist()
        np.testing.assert_array_equal(example.prediction, decode_mask(mask["prediction"], mask["size"]))


def test_saved_predictions_are_the_same_in_any_pieces(evaluation, tmp_path, monkeypatch):
    write_evaluation(evaluation, str(tmp_path / "whole"), save_predictions=True)
    monkeypatch.setattr(evaluating, "_ROWS_AT_ONCE", 7)
    write_evaluation(evaluation, str(tmp_path / "pieces"), save_predictions=True)
    whole, pieces = (pq.read_table(tmp_path / name / "per_sample.parquet") for name in ("whole", "pieces"))
    assert whole.equals(pieces) and whole.column_names[-2:] == ["prediction", "size"]
