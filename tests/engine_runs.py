"""Many short runs of the engine on batches in memory, in one process or under torchrun.

``python -m tests.engine_runs FOLDER [all]``: runs the table of this world size, and writes losses and
gradient norms of every step to ``FOLDER/world-N.json``. Both world sizes run side by side and take up each
other's checkpoints, for which they wait.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pipelines.bench.samples import bench_images, bench_tokenizer, collate
from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.runs.folder import RunFolder
from pipelines.runs.manifest import committed_steps
from pipelines.train.checkpoints.restore import find_checkpoint, load_checkpoint
from pipelines.train.checkpoints.writer import CheckpointWriter
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group, mixed_seed
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.learning_rate import learning_rate
from pipelines.train.engine.step import NonFiniteLossError
from tests.train_runs import tiny_values
from unigeoseg.modules.dropout import SampleDropout, draw_dropout
from unigeoseg.optim.orthogonal import matrix_names
from unigeoseg.samples.batch import Batch

#: In runs with a bad sample, that is in the step ``BAD``.
STEPS, SAVED, BATCH, BAD = 4, 2, 8, 1
OFFLOAD: dict[str, Any] = {"engine.offload_optimizer": True}
MUON: dict[str, Any] = {"train.optimizer": "muon", "train.muon_lr": 3.0}
ADAPTERS: dict[str, Any] = {"train.lora.rank": 2, "train.lora.embeddings": False}
#: In the instructions' enhancement, and before adapters.
DROPOUT: dict[str, Any] = {
    "model.tate.dropout": 0.3,
    **ADAPTERS,
    "train.lora.dropout": 0.3,
    "train.micro_batch": 2,
    "train.activation_checkpointing": True,
}
LOOK_AHEAD: dict[str, Any] = {"engine.look_ahead": True}
#: Ends the names of their runs, after the name of the run that they repeat.
AHEAD = "-ahead"
#: What all runs share: clipping that bites, a frozen encoder, decay, two rates.
BASE: dict[str, Any] = {
    "train.global_batch": BATCH,
    "train.grad_clip": 0.3,
    "train.weight_decay": 0.01,
    "train.warmup_ratio": 0.0,
    "model.vision.frozen": True,
}


@dataclass(frozen=True)
class Run:
    """One engine: trained from the start, or from another run's checkpoint after ``SAVED`` steps.

    ``bad``: the last picture of step ``BAD`` holds no numbers, so that step is left out.
    """

    name: str
    stage: int
    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    bad: bool = False

    @property
    def config(self) -> Config:
        return Config.model_validate(tiny_values(**BASE, **{"engine.zero_stage": self.stage}, **self.options))


def whole_runs(world: int, every: bool = True) -> list[Run]:
    """From the start, each saved on the way; ``every`` stage, or those that the quick table needs."""
    small = {"train.micro_batch": BATCH // world // 2}
    again = {"train.activation_checkpointing": True, **small}
    runs = [Run(f"w{world}-stage{stage}", stage) for stage in range(4)]
    runs += [Run(f"w{world}-stage{stage}-offload", stage, options=OFFLOAD) for stage in (2, 3)]
    runs += [Run(f"w{world}-accumulated", 2, options=small), Run(f"w{world}-recomputed", 3, options=again)]
    if world > 1:
        runs.append(
            Run(f"w{world}-hpz", 3, options={"engine.hpz_partition_size": world, "scale.workers": world})
        )
    quick = {
        1: ("stage0", "stage3", "accumulated"),
        2: ("stage1", "stage2", "stage3", "stage2-offload", "recomputed", "hpz"),
    }
    return [run for run in runs if every or run.name.split("-", 1)[1] in quick[world]]


def option_runs(world: int, every: bool = True) -> list[Run]:
    """With adapters in place of the language model's weights, in bfloat16, and with Muon."""
    narrow = {"train.precision": "bf16"}
    runs = [Run(f"w{world}-stage{stage}-lora", stage, options=ADAPTERS) for stage in range(4)]
    runs += [Run(f"w{world}-stage{stage}-bf16", stage, options=narrow) for stage in range(4)]
    runs += [Run(f"w{world}-stage{stage}-bf16-offload", stage, options=narrow | OFFLOAD) for stage in (2, 3)]
    single = narrow | {"train.micro_batch": 1, "engine.reduction_dtype": "fp32"}
    runs += [Run(f"w{world}-stage{stage}-bf16-accumulated", stage, options=single) for stage in (1, 2, 3)]
    runs += [Run(f"w{world}-stage{stage}-muon", stage, options=MUON) for stage in range(3)]
    runs.append(Run(f"w{world}-stage1-bf16-muon", 1, options=narrow | MUON))
    runs += [Run(f"w{world}-stage{stage}-dropout", stage, options=DROPOUT) for stage in (0, 2, 3)]
    quick = {
        1: ("stage0-lora", "stage0-bf16", "stage2-muon", "stage0-dropout"),
        2: (
            *("stage2-lora", "stage3-lora", "stage2-bf16", "stage3-bf16", "stage0-muon", "stage2-muon"),
            *("stage2-bf16-accumulated", "stage2-dropout"),
        ),
    }
    return [run for run in runs if every or run.name.split("-", 1)[1] in quick[world]]


def skipping_runs(world: int, every: bool = True) -> list[Run]:
    """With a bad sample on the last rank, in its last micro-batch."""
    small = {"train.micro_batch": BATCH // world // 2}
    runs = [Run(f"w{world}-stage{stage}-bad", stage, options=small, bad=True) for stage in range(4)]
    runs += [Run(f"w{world}-stage{stage}-offload-bad", stage, options=OFFLOAD, bad=True) for stage in (2, 3)]
    runs.append(Run(f"w{world}-bf16-bad", 2, options={"train.precision": "bf16"}, bad=True))
    quick = {1: ("stage0-bad",), 2: ("stage0-bad", "stage2-bad")}
    return [run for run in runs if every or run.name.split("-", 1)[1] in quick[world]]


def ahead_runs(world: int, every: bool = True) -> list[Run]:
    """Runs of the tables above once more, with their next micro-batch brought ahead: ``of`` is that run."""
    quick = {1: ("accumulated", "stage0-bf16"), 2: ("stage2-bf16-accumulated", "stage2-bad")}
    more = ("stage3", "stage2-offload", "stage2-dropout", "stage2-muon", "stage3-bad") if every else ()
    tables = (*whole_runs(world), *option_runs(world), *skipping_runs(world))
    named = {run.name.split("-", 1)[1]: run for run in tables}
    return [
        replace(named[name], name=f"w{world}-{name}{AHEAD}", options=named[name].options | LOOK_AHEAD)
        for name in (*quick[world], *more)
    ]


def resumed_runs(world: int, every: bool = True) -> list[Run]:
    """Taken up at the same and at the other world size, in the same and in other stages."""
    other = 3 - world
    table: list[tuple[str, int, dict[str, Any]]] = [
        *((f"w{world}-stage{stage}", stage, {}) for stage in range(4)),
        *((f"w{other}-stage{a}", b, {}) for a, b in ((2, 2), (3, 3), (2, 3), (3, 1), (2, 0), (0, 2))),
        (f"w{other}-stage0", 2, OFFLOAD),
        (f"w{other}-stage3-offload", 0, {}),
        (f"w{other}-stage2-muon", 2, MUON),
        (f"w{world}-stage0-muon", 1, MUON),
    ]
    quick = {
        1: [("w2-stage2", 3), ("w2-stage3", 1), ("w2-stage2", 0), ("w2-stage2-muon", 2)],
        2: [("w1-stage0", 2), ("w1-stage3", 3), ("w1-stage2-muon", 2)],
    }
    return [
        Run(f"w{world}-stage{stage}{'-offload' * (more == OFFLOAD)} from {source}", stage, source, more)
        for source, stage, more in table
        if every or ((source, stage) in quick[world] and more != OFFLOAD)
    ]


class Bench:
    """Batches and models that are the same in every run."""

    def __init__(self, config: Config) -> None:
        self.tokenizer = bench_tokenizer(config)
        self.images = [bench_images(config, BATCH, seed) for seed in range(STEPS)]

    def model(self, config: Config) -> nn.Module:
        torch.manual_seed(config.seed)
        return make_model(config, self.tokenizer)[0]

    def micro_batches(self, run: Run, step: int, rank: int, world: int) -> list[Any]:
        config, size = run.config, run.config.train.micro_batch or BATCH // world
        mine = self.images[step][rank * BATCH // world : (rank + 1) * BATCH // world]
        batches = [collate(config, self.tokenizer, mine[i : i + size]) for i in range(0, len(mine), size)]
        if run.bad and step == BAD and rank == world - 1:
            batches[-1].images = batches[-1].images.float()
            batches[-1].images[-1] = math.nan
        return batches


def run_engine(run: Run, bench: Bench, folder: Path) -> dict[str, Any]:
    """Losses, gradient norms and those of each module of the run's steps."""
    engine = Engine(run.config, lambda: bench.model(run.config), STEPS)
    start = 0
    if run.source:
        source = RunFolder(folder / run.source)
        _wait_for(source)
        found = find_checkpoint(source)
        assert found is not None and found.step == SAVED
        load_checkpoint(engine, source, found)
        start = SAVED
    checkpoints = CheckpointWriter(engine, RunFolder(folder / run.name), run.config.checkpoint)
    losses, norms, modules = [], [], []
    taken: list[int] = []
    engine._ahead.take = _counted(engine._ahead.take, taken)  # type: ignore[method-assign]
    made = cache(lambda step: bench.micro_batches(run, step, engine.rank, engine.world))
    for step in range(start, STEPS):
        if step == SAVED:  # a resumed run's at once, so that what it has loaded can be compared
            checkpoints.save({"step": step})
        try:
            result = engine.train_step(
                step,
                made(step),
                BATCH,
                by_module=True,
                tell=lambda: (engine.rank, 7),
                following=lambda step=step: made(step + 1)[0] if step + 1 < STEPS else None,
            )
            assert result.told == (sum(range(engine.world)), 7 * engine.world)
        except NonFiniteLossError as error:
            assert run.bad and step == BAD and error.what == "loss" and len(error.batches) == engine.world
            continue
        losses.append(result.loss)
        norms.append(result.grad_norm)
        modules.append(result.grad_norms)
    checkpoints.finish()
    engine.close()
    return {"loss": losses, "norm": norms, "modules": modules, "ahead": taken}


def _counted(take: Callable[[Batch], Batch], taken: list[int]) -> Callable[[Batch], Batch]:
    """Also notes of each micro-batch whether it came with the frozen encoder's features."""

    def one(batch: Batch) -> Batch:
        found = take(batch)
        taken.append(int(found.features is not None))
        return found

    return one


def run_torch(bench: Bench, left_out: int | None = None, **options: Any) -> dict[str, Any]:
    """The same training written without engine and DeepSpeed, perhaps without one of its steps."""
    run = Run("torch", 0, options=options)
    config = run.config
    model = bench.model(config).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    train = config.train
    turned = matrix_names(model) if train.optimizer == "muon" else set()
    matrices = [p for n, p in model.named_parameters() if n in turned and p.requires_grad]
    others = [p for n, p in model.named_parameters() if n not in turned and p.requires_grad]
    optimizer = torch.optim.AdamW(others, betas=train.betas, weight_decay=train.weight_decay)
    momenta = [torch.zeros_like(p, dtype=torch.float64) for p in matrices]
    drops = [module for module in model.modules() if isinstance(module, SampleDropout)]
    losses, norms, modules = [], [], []
    for step in range(STEPS):
        if step == left_out:
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, step, STEPS)
        (batch,) = bench.micro_batches(run, step, 0, 1)
        seed = mixed_seed(config.seed, step)
        points = torch.Generator().manual_seed(seed)
        draw_dropout(drops, batch.keys, batch.input_ids.shape[1], batch.packing, seed)
        loss = model(batch, points).total / BATCH
        loss.backward()
        modules.append(
            {
                name: float(nn.utils.get_total_norm([p.grad for p in own if p.grad is not None]))
                for name, module in model.named_children()
                if (own := [p for p in module.parameters() if p.requires_grad])
            }
        )
        norms.append(float(nn.utils.clip_grad_norm_(trained, train.grad_clip)))
        losses.append(float(loss.detach()))
        optimizer.step()
        for matrix, momentum in zip(matrices, momenta, strict=True):
            rate = learning_rate(train, step, STEPS) * train.muon_lr
            _turn(matrix, momentum, rate, train.weight_decay)
        model.zero_grad()
    return {"loss": losses, "norm": norms, "modules": modules}


def _turn(matrix: nn.Parameter, momentum: torch.Tensor, rate: float, decay: float) -> None:
    """Muon as it is written down, in float64: momentum, three rounds of polynomials, AdamW's length."""
    assert matrix.grad is not None
    gradient = matrix.grad.double()
    momentum.mul_(0.95).add_(gradient, alpha=0.05)
    x = (0.05 * gradient + 0.95 * momentum).flatten(1)
    rows, columns = x.shape
    x = x / x.norm() / 1.01
    for a, b, c, wide in (
        (8.0933685, -23.6204303, 17.4461517, 1.01),
        (3.6365856, -2.7219267, 0.5365463, 1.01),
        (2.6613000, -1.9771545, 0.4526164, 1.0),
    ):
        square = x @ x.T / wide**2
        x = (a * x + (b * square + c * square @ square) @ x) / wide
    with torch.no_grad():
        matrix.mul_(1 - rate * decay)
        matrix.sub_(rate * 0.2 * max(rows, columns) ** 0.5 * x.view_as(matrix).float())


def _wait_for(run: RunFolder) -> None:
    deadline = time.monotonic() + 240
    while not committed_steps(run):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no checkpoint at {run.path}")
        time.sleep(0.05)


def main() -> None:
    """Runs this world's table."""
    folder, every = Path(sys.argv[1]), "all" in sys.argv
    torch.set_num_threads(1)
    ensure_process_group()
    world = dist.get_world_size()
    bench = Bench(whole_runs(world)[0].config)
    tables = (whole_runs, option_runs, skipping_runs, ahead_runs, resumed_runs)
    found = {run.name: run_engine(run, bench, folder) for table in tables for run in table(world, every)}
    if world == 1:
        found |= {"torch": run_torch(bench), "torch without a step": run_torch(bench, left_out=BAD)}
        found["torch with adapters"] = run_torch(bench, **ADAPTERS)
        found["torch with muon"] = run_torch(bench, **MUON)
        found["torch with dropout"] = run_torch(bench, **{**DROPOUT, "train.micro_batch": None})
    if dist.get_rank() == 0:
        (folder / f"world-{world}.json").write_text(json.dumps(found))
    dist.barrier()
    leave_process_group()


if __name__ == "__main__":
    main()
