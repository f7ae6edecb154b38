"""Measures mosaicml-streaming: ``python -m pipelines.bench.mds_process items.json size workers``.

It runs under an interpreter of its own (see ``loaders.mds_elsewhere``), so it imports nothing but decoding.
"""

import json
import sys
from pathlib import Path

from pipelines.bench.loaders import Item, mds_shards

if __name__ == "__main__":
    path, size, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    items = [Item(**item) for item in json.loads(path.read_text(encoding="utf-8"))]
    print(json.dumps(vars(mds_shards(items, size, workers, path.parent))))
