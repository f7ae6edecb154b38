"""One training step of a preset on random images, without Ray: the bare model by part, and the engine."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from pipelines.bench.engine_bench import bench_engine, what_is_lacking
from pipelines.bench.kernels import largest_kernels, profile
from pipelines.bench.memory_history import memory_history, ranks_own
from pipelines.bench.samples import bench_batch, bench_tokenizer
from pipelines.bench.stopwatch import PARTS, Stopwatch
from pipelines.config import Config
from pipelines.models.device import describe_machine, peak_flops, peak_memory, synchronize
from pipelines.models.job_model import make_model
from pipelines.models.sizes import Sizes
from pipelines.train.engine.allocator import keep_freed_memory
from pipelines.train.engine.compiling import compile_model
from pipelines.train.engine.distributed import ensure_process_group, leave_process_group
from pipelines.train.engine.optimizer import make_optimizer
from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.bfloat16_cpu import bfloat16_products
from unigeoseg.samples.batch import Batch
from unigeoseg.samples.tokens import Tokenizer


def bench_step(
    config: Config,
    image_size: int | None = None,
    device: str = "cpu",
    batches: Sequence[int] = (),
    steps: int = 3,
    warmup: int = 1,
    beside: bool = False,
    kernels: int = 0,
    instructions: int | None = None,
    engine: bool = True,
    snapshot: Path | None = None,
) -> dict[str, Any] | None:
    """Times the bare model part by part, then the engine that trains it, on the same random images.

    Precision, activation checkpointing and compilation are the preset's: bfloat16 weights for ``bf16``, as
    the engine has them. The bare model's optimizer works on those weights directly; the engine's is sharded
    and has float32 masters. Under ``torchrun`` every rank does both, and the engine is one of all ranks.

    Args:
        config: the preset.
        image_size: in place of the preset's.
        device: ``cpu`` or ``cuda``.
        batches: images, a measurement for every number; by default what one worker holds at once.
        steps: timed steps; the median of each part counts.
        warmup: steps before.
        beside: also times :class:`~pipelines.bench.plain.PlainStep` on the same batch, in turn with ours.
        kernels: how many of the largest kernels (on a CPU: operators) of a step to name.
        instructions: of an image, in place of the preset's (with ``beside``, of one).
        engine: time the engine, too; where a CPU's memory cannot hold its states it is left out.
        snapshot: file for the GPU allocator's history, written at the end or when the device is full.

    Returns:
        ``{"rows": [{"name", "seconds", "share"}], "ratios": {samples_per_second, mfu, ...},
        "machine"}`` of the last batch that the device could hold; ``mfu`` is null where the device's peak is
        unknown. With several batches ``batches`` has the ratios of each (or ``out_of_memory``), with
        ``kernels`` that many rows of name, seconds, share and calls. With ``beside`` a row has
        ``plain_seconds`` too and the ratios ``of_plain``: forward and backward pass, ours by the plain ones.
        ``engine`` has a row a batch (:func:`~pipelines.bench.engine_bench.bench_engine`), each with
        ``of_bare``, its step by the bare model's; or ``engine_left_out`` says why not. ``None`` on other
        ranks than the first.

    Raises:
        UserError: there is no such device, it cannot hold any of the batches, the weights cannot be loaded,
            ``beside`` in another mode, or a snapshot of what is no GPU.
    """
    place = _device(device)
    if beside and config.model.mode != "released":
        raise UserError("--beside-plain compares released mode: add --set model.mode=released")
    if snapshot is not None and place.type != "cuda":
        raise UserError("--memory-snapshot is the history of a GPU's allocator: add --device cuda")
    if image_size is not None:
        config = config.model_copy(update={"model": dataclasses.replace(config.model, image_size=image_size)})
    chosen = batches or (config.micro_batch,)
    # The released code passes an image for each of its instructions.
    each = instructions or (1 if beside else config.data.instructions_per_image)
    own = ensure_process_group()
    try:
        if place.type == "cpu":  # as the engine does
            keep_freed_memory()
            torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))
        with memory_history(snapshot and ranks_own(snapshot)):
            result, sizes = _bare(config, place, chosen, each, steps, warmup, beside, kernels)
            lacking = what_is_lacking(config, sizes, place) if engine else None
            if lacking:
                result["engine_left_out"] = lacking
            elif engine:
                result["engine"] = _beside_bare(result, bench_engine(config, chosen, each, steps, warmup))
        return None if dist.get_rank() else result
    finally:
        if own:
            leave_process_group()


def _bare(
    config: Config,
    place: torch.device,
    batches: Sequence[int],
    instructions: int,
    steps: int,
    warmup: int,
    beside: bool,
    kernels: int,
) -> tuple[dict[str, Any], Sizes]:
    """The bare model's part of the result, and its sizes without its modules'."""
    torch.manual_seed(config.seed)
    tokenizer = bench_tokenizer(config)
    model = _model(config, tokenizer, place)
    on_gpu = place.type == "cuda"
    optimizer, _ = make_optimizer(model, config.train, fused=True)
    plain = _plain(config, tokenizer.vocab_size, place) if beside else None
    results: list[dict[str, Any]] = []
    full: list[dict[str, Any]] = []
    for size in batches:
        inputs = bench_batch(config, tokenizer, size, instructions=instructions).to(place)
        laps, plain_laps = [], []
        try:
            for number in range(warmup + steps):
                laps.append(_timed(model, inputs, number, optimizer))
                if plain is not None:
                    plain_laps.append(_timed(plain, inputs, number, None))
            whole = [_whole(model, inputs, n, optimizer) for n in range(steps)] if on_gpu else []
        except torch.OutOfMemoryError as error:
            full.append({"batch": size, "out_of_memory": str(error).splitlines()[0]})
            break
        results.append(_result(config, laps[warmup:], whole, inputs, place))
        if plain is not None:
            _compare(results[-1], laps[warmup:], plain_laps[warmup:])
    if not results:
        raise UserError(
            f"--batch {full[0]['batch']}: {place} cannot hold it ({full[0]['out_of_memory']}); give a "
            "smaller one, or --set train.activation_checkpointing=true"
        )
    result = results[-1]
    if len(batches) > 1:
        result["batches"] = [*(one["ratios"] for one in results), *full]
    if kernels and not full:
        with profile() as profiler:
            _whole(model, inputs, 0, optimizer)
        result["kernels"] = largest_kernels(profiler, kernels)
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained = sum(n for n, learns in counts if learns)
    return result, Sizes(sum(n for n, _ in counts), trained, max(n for n, _ in counts), {})


def _beside_bare(result: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The engine's rows with what their steps take of the bare model's."""
    bare = {each["batch"]: each for each in result.get("batches", [result["ratios"]])}
    for row in rows:
        if "step_seconds" in row and "step_seconds" in bare.get(row["batch"], {}):
            row["of_bare"] = row["step_seconds"] / bare[row["batch"]]["step_seconds"]
    return rows


def _model(config: Config, tokenizer: Tokenizer, device: torch.device) -> UniGeoSeg:
    model = make_model(config, tokenizer)[0].to(device).train()
    if config.train.precision == "bf16":
        model.bfloat16()
    if config.train.activation_checkpointing:
        model.enable_activation_checkpointing()
    if config.train.compile:
        compile_model(model, config.train.compile_backend, device)
    return model


def _plain(config: Config, vocabulary: int, device: torch.device) -> UniGeoSeg:
    from pipelines.bench.plain import PlainStep

    model = PlainStep(config.model, max(vocabulary, config.model.language.embedding_rows))
    if config.train.precision == "bf16":
        model.bfloat16()
    return model.to(device).train()


def _backward(model: UniGeoSeg, inputs: Batch, number: int) -> None:
    """Forward and backward pass of step ``number``."""
    with bfloat16_products(inputs.images.device, next(model.parameters()).dtype):
        total = model(inputs, torch.Generator().manual_seed(number)).total / len(inputs)
        total.backward()


def _whole(model: UniGeoSeg, inputs: Batch, number: int, optimizer: torch.optim.Optimizer) -> float:
    """Seconds of a step without a stop between its parts: a GPU runs while the next part is prepared."""
    device = inputs.images.device
    synchronize(device)
    started = time.perf_counter()
    _backward(model, inputs, number)
    optimizer.step()
    model.zero_grad()
    synchronize(device)
    return time.perf_counter() - started


def _timed(
    model: UniGeoSeg, inputs: Batch, number: int, optimizer: torch.optim.Optimizer | None
) -> dict[str, float]:
    """Seconds by part of one step; without an optimizer it ends with the backward pass."""
    watch = Stopwatch(inputs.images.device)
    release = watch.watch(model)
    watch.start()
    _backward(model, inputs, number)
    watch.lap("backward")
    if optimizer is not None:
        optimizer.step()
        watch.lap("optimizer")
    model.zero_grad()
    release()
    return watch.seconds


def _compare(result: dict[str, Any], laps: list[dict[str, float]], plain: list[dict[str, float]]) -> None:
    for row in result["rows"]:
        row["plain_seconds"] = median(lap[row["name"]] for lap in plain)
    ours, theirs = (median(sum(lap.values()) - lap["optimizer"] for lap in each) for each in (laps, plain))
    result["ratios"] |= {"plain_seconds": theirs, "of_plain": ours / theirs}


def _result(
    config: Config, laps: list[dict[str, float]], steps: list[float], inputs: Batch, device: torch.device
) -> dict[str, Any]:
    """Of one batch size; ``steps`` are seconds of whole steps, where they were timed apart."""
    size, tokens = len(inputs), round(inputs.tokens / len(inputs))
    parts = {part: median(lap[part] for lap in laps) for part in PARTS}
    whole = median(steps or [sum(lap.values()) for lap in laps])
    total = sum(parts.values())
    rows = [{"name": part, "seconds": parts[part], "share": parts[part] / total} for part in PARTS]
    ratios: dict[str, Any] = {
        "step_seconds": whole,
        "samples_per_second": size / whole,
        "batch": len(inputs.images),
        "samples": size,
        "tokens": tokens,
        "image_size": config.model.image_size,
        "precision": config.train.precision,
        "peak_memory_bytes": peak_memory(device),
        "mfu": None,
    }
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if peak is not None:
        from pipelines.models.mfu import flops

        image, instruction = flops(config, tokens)
        ratios["mfu"] = (len(inputs.images) * image + size * instruction) / whole / peak
    return {"rows": rows, "ratios": ratios, "machine": describe_machine(device)}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is no device; give cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine has no usable GPU; give cpu")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name} cannot be timed here; give cpu or cuda")
    return device
