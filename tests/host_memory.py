"""What a model whose weights are files takes of the host while two ranks make it and stage 3 of ZeRO cuts it.

``torchrun --nproc-per-node 2 -m tests.host_memory LM|EXPORT fp32|bf16``: each rank prints a line of JSON, the
bytes of its own memory (pages of files left out, which all workers of a node share and the system can drop):
the most while the model was made and while it was cut, and what was left then.
"""

import json
import sys
import threading
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.train.engine.deepspeed_config import deepspeed_config
from pipelines.train.engine.deepspeed_private import cut_parameters
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group
from tests.engine_runs import Bench
from tests.train_runs import tiny_values
from unigeoseg.export import LANGUAGE


def own_bytes() -> int:
    """This process' memory without the pages of files."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


class Peak:
    """The most memory within a block, above what there was before."""

    def __enter__(self) -> "Peak":
        self._end, self.before = threading.Event(), own_bytes()
        self.most = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.001):
            self.most = max(self.most, own_bytes() - self.before)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.left = own_bytes() - self.before


def main(folder: str, precision: str) -> None:
    """Tells what it takes, and leaves the group, of which no thread may live on."""
    ensure_process_group()
    found = measured(folder, precision)
    sys.stdout.write(f"{json.dumps(found)}\n")  # in one piece: the ranks share the pipe
    sys.stdout.flush()
    dist.barrier()
    leave_process_group()
    names = [path.read_text(encoding="utf-8").strip() for path in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in names):
        sys.exit(f"threads of the group live on, and could abort a process which ends: {names}")


def measured(folder: str, precision: str) -> dict[str, int]:
    """Makes the tiny model with the folder's language model, or from the export, and cuts it."""
    values = {"model.language.path": folder, "engine.zero_stage": 3, "train.precision": precision}
    if (Path(folder) / LANGUAGE).is_dir():
        values |= {"model.language.path": f"{folder}/{LANGUAGE}", "init.model": folder}
    config = Config.model_validate(tiny_values(**values))
    bench = Bench(config)
    make_model(Config.model_validate(tiny_values()), bench.tokenizer)  # what the libraries take once
    with Peak() as made:
        model = bench.model(config)
    with Peak() as cut:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        cut_parameters(model, deepspeed_config(config, dist.get_world_size()), dtype)
    count = sum(p.ds_numel for p in model.parameters())
    return {"parameters": count, "made": made.most, "cut": cut.most, "left": cut.left}


if __name__ == "__main__":
    main(*sys.argv[1:])
