"""HTML in class names, instructions and names of files stays text in the pages that are written."""

import html
import json
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.curate.report import write_report as write_store_report
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import scene, write
from tests.tiny_store import write_store

HTML = "<img src=x onerror=alert(1)>"


def test_the_page_of_a_store(tmp_path):
    store = write_store(tmp_path / "store", 3, 64)
    rows = pq.read_table(store / "index.parquet").to_pylist()
    table = pq.read_table(store / "index.parquet")
    for row in rows:
        row["category"], row["source"], row["licence"] = HTML, HTML, HTML
    pq.write_table(table.from_pylist(rows, table.schema), store / "index.parquet")
    card = json.loads((store / "dataset.json").read_text())
    card["quarantined"] = [{"file": HTML, "detail": HTML}]
    stage = {"name": HTML, "unit": HTML, "in": 3, "out": 2, "dropped": {HTML: 1}, "named": {HTML: [HTML]}}
    card |= {"stages": [stage], "shards": [], "licences": {HTML: 3}}
    (store / "dataset.json").write_text(json.dumps(card))
    write_store_report(str(store), str(tmp_path / "page.html"), n=2, progress=False)
    page = (tmp_path / "page.html").read_text()
    assert HTML not in page and page.count(html.escape(HTML)) >= 4


def test_the_page_of_a_map(tmp_path, export):
    raster = write(tmp_path / f"{HTML}.tif", scene(60, 60))
    request = Request(model=export, inputs=(raster,), out=str(tmp_path / "out"), text=HTML, none=False)
    make_map(request, progress=False)
    page = Path(tmp_path / "out/report.html").read_text()
    assert HTML not in page and page.count(html.escape(HTML)) >= 2
