"""The training loop of one rank, the same in a Ray Train worker, under torchrun and in a plain process."""

import json
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pipelines.models.initial import keep_unused
from pipelines.models.job_model import exported_state, make_model, with_local_language
from pipelines.plan.plan import Plan
from pipelines.runs.folder import EXPORT, REPLAY, TOKENIZER, RunFolder
from pipelines.runs.job import Job, Outcome
from pipelines.runs.manifest import Checkpoint, checkpoint_name, find_problem
from pipelines.storage.background import in_background
from pipelines.storage.lease import Hold, LeaseLostError
from pipelines.storage.retry import NO_SPACE, Retry
from pipelines.store.index import StoreIndex
from pipelines.stream.stream import Stream
from pipelines.tracking.metric_names import validation_metrics
from pipelines.train.checkpoints.best import Best, recalled
from pipelines.train.checkpoints.export import export_checkpoint, read_seen_at
from pipelines.train.checkpoints.frozen import frozen_tensors, restore_frozen, write_frozen
from pipelines.train.checkpoints.restore import find_checkpoint, load_checkpoint, load_moments
from pipelines.train.checkpoints.writer import CheckpointWriter, SaveReport
from pipelines.train.engine.allocator import keep_freed_memory
from pipelines.train.engine.engine import Engine
from pipelines.train.engine.step import NonFiniteLossError, StepResult
from pipelines.train.loop.adaptive import AdaptiveShares
from pipelines.train.loop.channel import ANSWER, Channel
from pipelines.train.loop.logs import at_step
from pipelines.train.loop.machines import check_machines
from pipelines.train.loop.micro_batch import choose_micro_batch
from pipelines.train.loop.out_of_memory import out_of_memory
from pipelines.train.loop.preemption import Notice, Wish
from pipelines.train.loop.profiler import StepProfiler
from pipelines.train.loop.recorder import Recorder
from pipelines.train.loop.skipping import Skipping
from pipelines.train.loop.stalls import Watchdog
from pipelines.train.loop.step_input import StepInput, Steps
from pipelines.train.loop.validation import Validation
from unigeoseg.errors import UserError
from unigeoseg.samples.tokens import load_tokenizer

logger = logging.getLogger(__name__)
#: Opens a rank's stream: ``pipelines.stream.open_stream`` or ``open_plain_stream``.
OpenStream = Callable[..., Stream]
#: What was loaded from where, before the first step.
WEIGHTS = "weights.json"


def run_loop(
    job: Job, channel: Channel, open_stream: OpenStream, catch_sigterm: bool = False
) -> Outcome | None:
    """Trains from the newest checkpoint of the run (or from the start) to the plan's end.

    Errors that a restart would only repeat (wrong input, a loss that is not finite) are reported to the
    driver before they are raised, and a restarted worker returns at once when it finds one.

    Args:
        job: the run.
        channel: to the driver.
        open_stream: where batches come from.
        catch_sigterm: write a checkpoint on SIGTERM, then end with ``SystemExit``.

    Returns:
        How it went, or ``None`` when the run was given up before.
    """
    if channel.failed():
        return None
    try:
        index = StoreIndex.open(job.store, job.config.data.split)
        chosen = choose_micro_batch(job.config, index)
        job = replace(job, config=chosen.config)
        loop = _Loop(job, index, channel, open_stream, catch_sigterm)
        if chosen.text and loop.engine.rank == 0:
            channel.post("note", {"message": chosen.text})
        return loop.run()
    except UserError as error:
        channel.fail(UserError(str(error)))  # subclasses may not survive pickling
        raise
    except (NonFiniteLossError, LeaseLostError) as error:
        channel.fail(error)
        raise
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        full = UserError(
            f"{error}; make room at {job.run} (or lower checkpoint.keep) and go on with --resume"
        )
        channel.fail(full)
        raise full from error
    except torch.OutOfMemoryError as error:
        told = out_of_memory(error, job.config, _run_folder(job))
        channel.fail(told)
        raise told from error


def _run_folder(job: Job) -> RunFolder:
    folder = RunFolder(job.run, Retry(patience_s=job.config.checkpoint.patience_s))
    if job.lease:
        folder.hold = Hold(folder, job.lease)
    return folder


class _Loop:
    def __init__(
        self, job: Job, index: StoreIndex, channel: Channel, open_stream: OpenStream, catch_sigterm: bool
    ) -> None:
        self.job, self.channel, self.config = job, channel, job.config
        self.run_folder = _run_folder(job)
        self.open_stream, self.catch_sigterm = open_stream, catch_sigterm
        self.index = index
        self.plan = Plan.from_config(self.index, self.config)
        if self.plan.fingerprint != job.plan_fingerprint:
            raise UserError(
                f"this worker makes another plan from {job.store} than the driver: the store was changed "
                "while the run was starting; start it again"
            )
        self.tokenizer_path = self._tokenizer_path()
        self.tokenizer = load_tokenizer(self.tokenizer_path, self.config.model.mode)
        if not torch.cuda.is_available():
            keep_freed_memory()
        self.engine = Engine(
            self.config,
            self._make_model,
            self.plan.steps,
            threads=max(1, int(self.config.scale.cpus_per_worker)),
        )
        self.checkpoints = CheckpointWriter(
            self.engine, self.run_folder, self.config.checkpoint, self._frozen
        )
        self.validation = Validation(self.config, job.store, self.engine, self.tokenizer)
        self.adaptive: AdaptiveShares | None = None
        self._losses: list[float] = []
        self._retries = 0  # of the streams before the one that is open

    def _make_model(self) -> nn.Module:
        model, reports = make_model(self.config, self.tokenizer)
        self.found = find_checkpoint(self.run_folder)
        if self.found:
            restore_frozen(model, self.run_folder, self.found.state.get("frozen"))
        frozen = frozen_tensors(model) if dist.get_rank() == 0 else {}
        self._frozen = in_background(lambda: write_frozen(self.run_folder, frozen), "frozen weights")
        if reports and dist.get_rank() == 0:
            content = [report.plain() for report in reports]
            self.run_folder.local(WEIGHTS).write_text(json.dumps(content, indent=2), encoding="utf-8")
            self.run_folder.publish(WEIGHTS)
            for report in reports:
                self.channel.post("note", {"message": report.summary()})
        return model

    def run(self) -> Outcome:
        found = self.found
        start, samples = (found.step, int(found.state["samples_seen"])) if found else (0, 0)
        if found:
            self._restore(found)
        elif self.config.init.optimizer:
            taken = load_moments(self.engine, self.config.init.optimizer)
            if self.engine.rank == 0:
                self.channel.post("note", {"message": taken})
        if self.config.pts.schedule == "adaptive":
            self.adaptive = AdaptiveShares(
                self.config, self.index, found.state["adaptive"] if found else None
            )
            self.plan = self.adaptive.plan()
        skipped = int(found.state.get("skipped_steps", 0)) if found else 0
        keeping, known = self.config.checkpoint, {}
        if found and self.engine.rank == 0:  # one rank's view of storage, for all
            known = recalled(self.run_folder, keeping, found.state)
        self.best = Best(keeping, self.config.evaluation.patience, self.engine.gather(known)[0])
        self.skipping = Skipping(
            self.run_folder, self.config.recovery.max_skipped_steps, skipped, self.engine.rank
        )
        self.recorder = Recorder(
            self.job, self.engine, self.plan, self.run_folder, self.channel, start, samples, self.skipping
        )
        seconds = self.config.recovery.stall_seconds
        self.watchdog = Watchdog(self.engine, self.run_folder, self.channel, seconds)
        self.notice = Notice(self.engine, self.channel, self.catch_sigterm)
        self.profiler = StepProfiler(self.config.train.profile, self.run_folder, self.engine.rank)
        if self.config.recovery.check_nodes:
            check_machines(self.engine, self.channel)
        try:
            with self.watchdog, self.notice, self.profiler:
                while start < self.plan.steps and not self.best.exhausted:
                    start = self._train(start, self._stop(start))
                if self.config.checkpoint.export == "best":  # the last one may be it
                    self._saved(self.checkpoints.finish())
                exported = self._export(start)
                self._saved(self.checkpoints.finish())
        finally:
            self.checkpoints.close()
            unsent = self.recorder.close()
        run_id = self.recorder.tracker.run_id if self.recorder.tracker else None
        samples = self.recorder.samples_seen
        self.engine.barrier()
        self.engine.close()
        self.run_folder.close()
        committed, skipped = self.checkpoints.committed, self.skipping.count
        stopped = self.best.why_stopped if start < self.plan.steps else None
        return Outcome(
            start, samples, committed, run_id, unsent, skipped, exported, self.best.kept(), stopped
        )

    def _restore(self, found: Checkpoint) -> None:
        began = time.perf_counter()
        load_checkpoint(self.engine, self.run_folder, found)
        self.checkpoints.committed = found.name
        if self.engine.rank == 0:
            written = f"{found.state['world_size']} workers at ZeRO {found.state['zero_stage']}"
            took = f"weights and optimizer state of {written} loaded in {time.perf_counter() - began:.1f} s"
            self.channel.post("note", {"message": f"resuming from step {found.step} ({found.name}): {took}"})

    def _stop(self, start: int) -> int:
        """Where the steps from ``start`` on that are planned by now end; chooses new shares if none are."""
        adaptive = self.adaptive
        if adaptive is None:
            return self.plan.steps
        if adaptive.end <= start:
            adaptive.extend(self.plan.steps - start)
            self.plan = adaptive.plan()
            self.recorder.follow(self.plan)
            if self.engine.rank == 0:
                self.channel.post("note", {"message": adaptive.describe()})
        if self.engine.rank == 0:
            self.run_folder.local(REPLAY).write_text(adaptive.replay(), encoding="utf-8")
            self.run_folder.publish(REPLAY)
        return adaptive.end

    def _train(self, start: int, stop: int) -> int:
        """The steps from ``start`` to ``stop``, or to where nothing gets better; how many are done then."""
        engine = self.engine
        stream = self.open_stream(
            self.adaptive.config if self.adaptive else self.config,
            self.job.store,
            self.tokenizer_path,
            rank=engine.rank,
            world=engine.world,
            start_step=start,
            stop_step=stop,
        )
        ended = time.perf_counter()
        with stream:
            steps = Steps(stream, engine.accumulation)
            for item in steps:
                at_step(item.step)
                self._saved(self.checkpoints.poll())
                self.profiler.before(item.step)
                result = self._step(item, steps)
                self.profiler.after(item.step)
                self._losses += [result.loss] if result.finite else []
                if self.adaptive:
                    self.adaptive.add(result)
                now, done = time.perf_counter(), item.step + 1
                measured = self.validation.run() if self._measures(done) else None
                metrics = validation_metrics(measured.get("val", {})) if measured else {}
                better = self.best.offer(done, metrics)
                ends = done == self.plan.steps or self.best.exhausted
                retries = self._retries + item.stats.read.retries
                self.recorder.step(result, item.sample_ids, now - ended, retries, item.events, measured)
                self.watchdog.beat(f"step {item.step}")
                wish = self.notice.agreed(result.told)
                if measured is not None:
                    now = time.perf_counter()  # neither is an evaluation's
                if done % self.config.checkpoint.every == 0 or ends or better or wish.checkpoint:
                    self._checkpoint(done, metrics)
                    self._answer(done, wish)
                    now = time.perf_counter()  # a checkpoint's time is no step's
                ended = now
                if ends:
                    stop = done
                    break
            self._retries += stream.stats.read.retries
        return stop

    def _measures(self, done: int) -> bool:
        """Whether an evaluation follows ``done`` steps: where it is due, and of the last where it decides."""
        decides = self.config.checkpoint.by_evaluation and done == self.plan.steps
        return decides or self.validation.due(done)

    def _answer(self, done: int, wish: Wish) -> None:
        """Tells of a checkpoint that was asked for, and ends if that was asked too."""
        self.watchdog.beat(f"the checkpoint of step {done}")
        if wish.checkpoint or wish.end:
            self._saved(self.checkpoints.finish())  # written beside training: it counts once it is whole
        if wish.checkpoint and self.engine.rank == 0:
            name = self.checkpoints.committed
            message = f"wrote {name} before its time, as asked"
            self.channel.post(ANSWER, {"message": message, "asked": wish.asked})
        if wish.end:
            raise SystemExit(128 + signal.SIGTERM)

    def _step(self, item: StepInput, steps: Steps) -> StepResult:
        try:
            return self.engine.train_step(
                item.step,
                item.batches,
                self.plan.samples_in(item.step),
                wait=item.wait,
                by_module=self.validation.due(item.step + 1),
                tell=self.notice.heard,
                following=steps.following,
            )
        except NonFiniteLossError as error:
            self.skipping.met(error)
            return error.result

    def _checkpoint(self, done: int, metrics: dict[str, float]) -> None:
        """Starts the checkpoint of ``done`` steps; ``metrics`` are of an evaluation after them, if any."""
        self.recorder.flush()
        if self._losses:
            loss = {"loss": sum(self._losses) / len(self._losses)}
            self.best.offer(done, loss)
            metrics = metrics | loss
        tracker = self.recorder.tracker
        state = {
            "step": done,
            "position": done * self.plan.batch_size,
            "samples_seen": self.recorder.samples_seen,
            "skipped_steps": self.skipping.count,
            "plan_fingerprint": self.job.plan_fingerprint,  # an adaptive one: of its beginning
            "schedule_record": self.plan.curve.record(),
            "config_hash": self.job.config_hash,
            "world_size": self.engine.world,
            "zero_stage": self.config.engine.zero_stage,
            "mlflow_run_id": tracker.run_id if tracker else None,
            "versions": self.job.versions,
            "metrics": metrics,
            "best": self.best.state(),
        }
        if self.adaptive:
            state["adaptive"] = self.adaptive.state()
        self._losses = []
        self.checkpoints.save(state, self.recorder.publish, self._may_write)

    def _may_write(self) -> None:
        """Before anything is written; beside training, as it asks storage."""
        self.run_folder.check_held()

    def _saved(self, report: SaveReport | None) -> None:
        if report is not None:
            self.recorder.checkpoint = report

    def _export(self, done: int) -> dict[str, Any]:
        """Exports the best model where that is asked for, else that of ``done`` steps; says which and why."""
        from unigeoseg.export import write_export

        step, why = self.engine.gather(self._chosen(done))[0]
        told = {"checkpoint": checkpoint_name(step), "step": step, "why": why}
        if self.engine.rank == 0:
            self.run_folder.check_held()
        if step != done:
            if self.engine.rank == 0:
                folder = self.run_folder.local(f"{EXPORT}/config.json").parent
                export_checkpoint(f"{self.run_folder.path}/{checkpoint_name(step)}", folder)
                self.run_folder.publish(EXPORT)
            self.engine.barrier()
            return told
        state = self.engine.full_state()
        if self.engine.rank == 0:
            note = {"run": self.run_folder.name, "step": done}
            folder = self.run_folder.local(f"{EXPORT}/config.json").parent
            state = exported_state(self.config, state)
            model, seen = with_local_language(self.config).model, read_seen_at(self.run_folder)
            write_export(folder, state, model, self.tokenizer, note, seen)
            keep_unused(self.config, folder)
            self.run_folder.publish(EXPORT)
        self.engine.barrier()
        return told

    def _chosen(self, done: int) -> tuple[int, str]:
        """The step whose model is exported, and why; rank 0's answer counts."""
        best = self.best.kept()
        if self.config.checkpoint.export != "best":
            return done, "the last step"
        if best is None:
            return done, f"the last step: {self.best.metric} was never measured"
        why = f"the best {best['metric']}, {best['value']:.4f}, of {best['of']} measured"
        if best["step"] == done or self.engine.rank:
            return best["step"], why
        problem = find_problem(self.run_folder, best["checkpoint"])
        if problem is not None:
            why = f"the last step: the best checkpoint, {best['checkpoint']}, is damaged ({problem})"
            logger.warning("exporting %s", why)
            return done, why
        return best["step"], why

    def _tokenizer_path(self) -> str:
        if self.job.tokenizer is not None:
            return self.job.tokenizer
        self.run_folder.fetch(TOKENIZER)
        return str(Path(self.run_folder.base) / TOKENIZER)
