"""A stream in a process of its own: ``python -m tests.stream_runs STORE OUT CONFIG(JSON)``.

Connects to ``RAY_ADDRESS`` and writes a line for each step as it arrives: its sample ids.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from pipelines.config import Config
from pipelines.store.index import StoreIndex
from pipelines.stream.tokenizer import prepare_tokenizer


def main() -> None:
    """Streams all steps of one worker, a tenth of a second each."""
    import ray

    from pipelines.stream import open_stream

    store, out, text = sys.argv[1:]
    config = Config.model_validate_json(text)
    ray.init(address="auto", log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder, Path(out).open("w", buffering=1) as lines:
        prepare_tokenizer(config, StoreIndex.open(store), Path(folder))
        with open_stream(config, store, folder) as items:
            for item in items:
                lines.write(json.dumps(item.batch.sample_ids) + "\n")
                time.sleep(0.1)


if __name__ == "__main__":
    main()
