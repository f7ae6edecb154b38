"""One rank of ``unigeoseg bench memory``: ``python -m pipelines.bench.memory_process CONFIG.yaml OUT.json``.

Two steps of the training engine on random images; the most that they held, all ranks' largest, goes to OUT.
On a CPU that is the growth of the resident memory that no file backs, since before the model was made.
"""

import json
import os
import sys
from pathlib import Path

import psutil
import torch

from pipelines.bench.samples import bench_batch, bench_tokenizer
from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.storage.yaml_text import load_yaml
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group
from pipelines.train.engine.engine import Engine

_STEPS = 2  # the optimizer makes its moments in the first one


def measure(config: Config) -> dict[str, int]:
    """Bytes at the most, tokens of a sample and samples of the micro-batch."""
    ensure_process_group()
    tokenizer = bench_tokenizer(config)
    batch = bench_batch(config, tokenizer, config.micro_batch, 0, config.data.instructions_per_image)
    before = _held()
    _forget_peak()
    threads = max(1, int(config.scale.cpus_per_worker))
    engine = Engine(config, lambda: make_model(config, tokenizer)[0], 1000, threads)
    count = len(batch) * engine.accumulation * engine.world
    for step in range(_STEPS):
        engine.train_step(step, [batch] * engine.accumulation, count, following=lambda: batch)
    peaks = engine.gather(_peak() - before)
    engine.barrier()
    engine.close()
    leave_process_group()
    return {"bytes": max(peaks), "tokens": batch.input_ids.shape[1], "samples": len(batch)}


def _held() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process().memory_info().rss)


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        _files.append(_file_backed())


def _peak() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    # Libraries are read in as they are used; those pages are no memory of the model's.
    return _status("VmHWM") - (_file_backed() - _files[-1])


_files: list[int] = []


def _file_backed() -> int:
    return _status("RssFile")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main() -> None:
    """Measures what the command line names."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    config = Config.model_validate(load_yaml(source.read_text(encoding="utf-8")))
    found = measure(config)
    if os.environ.get("RANK", "0") == "0":
        target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
