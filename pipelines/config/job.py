"""The one configuration tree of a training job.

Unknown keys are refused; fields that contradict one another are refused with the remedy. Presets are YAML
files of this tree (``jobs/presets``), overridden by ``--set a.b=value``.
"""

from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.config.batch import micro_batches
from pipelines.config.building import BuildConfig
from pipelines.config.data import DataConfig, PTSConfig
from pipelines.config.section import Section
from pipelines.config.training import EngineConfig, TrainConfig
from pipelines.storage.secrets import hide_all
from pipelines.tracking.metric_names import BEST_BY
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError


class TokenizerConfig(Section):
    """Where the tokenizer comes from."""

    path: str | None = Field(None, description="tokenizer folder; null trains a BPE on the store's own text")
    vocab_size: int = Field(512, ge=64, description="size of the trained tokenizer")
    max_length: int = Field(512, ge=16, description="longest sequence, image tokens included")


class InitConfig(Section):
    """Where the first weights come from; the language model's own come from ``model.language.path``."""

    model: str | None = Field(
        None,
        description="an export of this project, or a released checkpoint (it then decides mode, sizes and, "
        "unless tokenizer.path is set, the tokenizer); all of its weights are taken. A folder or s3://",
    )
    optimizer: str | None = Field(
        None,
        description="a run whose optimizer state goes on in this one, from its newest checkpoint, where "
        "parameters have the same name and shape; for more training from init.model=RUN/export. "
        "A folder or s3://",
    )
    vision: str | None = Field(
        None,
        description="weights of model.vision.backbone: .safetensors, .pth, or a folder with one; by names of "
        "timm or of efficientnet-lite-pytorch. A path, s3:// or hf://ORG/NAME",
    )
    mask2former: str | None = Field(
        None,
        description="Mask2Former weights for vision encoder and decoders: detectron2 .pkl, .safetensors or a "
        "Hugging Face folder",
    )
    parts: tuple[Literal["vision", "pixel_decoder", "mask_decoder"], ...] = Field(
        ("vision", "pixel_decoder", "mask_decoder"), description="what mask2former fills"
    )
    strict: bool = Field(True, description="refuse missing and unexpected keys; false only reports them")


class CheckpointConfig(Section):
    """When checkpoints are written and how many stay."""

    every: int = Field(500, ge=1, description="optimizer steps between checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay")
    keep_best: int = Field(0, ge=0, description="best ones that stay besides, by best_by")
    best_by: str = Field(
        "loss",
        description="loss (mean since the checkpoint before), or of the evaluations on the way val/gIoU, "
        "val/cIoU (means over the tasks), val/TASK/gIoU, val/TASK/cIoU: a checkpoint is then written "
        "wherever one is the best so far, and the best one always stays",
    )
    best_is: Literal["lowest", "highest"] | None = Field(None, description="null: as best_by says")
    export: Literal["last", "best"] = Field("last", description="which checkpoint's model the run exports")
    asynchronous: bool = Field(
        True, description="written beside training from a copy in host memory; false: training waits, no copy"
    )
    patience_s: float = Field(
        600, ge=0, description="seconds for which storage may refuse a checkpoint, or the run's other files"
    )
    max_failures: int = Field(
        3,
        ge=-1,
        description="restarts of the workers without a new checkpoint between them, before the run fails; "
        "lost nodes that were announced (spot preemption) do not count; -1: no limit",
    )

    @field_validator("best_by")
    @classmethod
    def _is_a_metric(cls, name: str) -> str:
        if name not in BEST_BY:
            close = get_close_matches(name, BEST_BY, n=2)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(f"no such metric: {hint}There are {', '.join(BEST_BY)}")
        return name

    @property
    def by_evaluation(self) -> bool:
        """Whether the evaluations on the way decide which checkpoint is the best."""
        return self.best_by.startswith("val/")

    @property
    def best_kept(self) -> int:
        """How many of the best stay: one at least where a run names what is best, or exports it."""
        return max(self.keep_best, int(self.by_evaluation or self.export == "best"))

    @property
    def more_is_better(self) -> bool:
        """Whether a higher value of ``best_by`` is better."""
        return BEST_BY[self.best_by] if self.best_is is None else self.best_is == "highest"


class RecoveryConfig(Section):
    """What a run does when something goes wrong."""

    stall_seconds: float | None = Field(
        1800,
        gt=0,
        description="without a step for so long, all ranks write their stacks and the workers start anew "
        "from the newest checkpoint; more than the longest step and checkpoint; null: wait for ever",
    )
    grace_seconds: float = Field(
        25, ge=0, description="after SIGTERM or Ctrl-C, how long the run may take for a last checkpoint"
    )
    max_skipped_steps: int = Field(
        0,
        ge=0,
        description="steps whose loss or gradient is not finite that are left out, in all, before the run "
        "stops; each leaves its sample ids in diagnostics/; 0: the first one stops the run",
    )
    check_nodes: bool = Field(
        True,
        description="before the first step and after each restart, every rank multiplies, sums over the "
        "ranks, and looks at memory, disk, clock and counted GPU errors; what is wrong is named and left out",
    )
    lease_seconds: float = Field(
        60, gt=0, description="a job without a sign of life for so long has lost its run folder"
    )


class EvaluationConfig(Section):
    """Evaluation at the end of a run, and by ``unigeoseg evaluate``."""

    split: str = "val"
    batch: int = Field(16, ge=1, description="images at once")
    workers: int = Field(1, ge=0, description="Ray actors; 0: in the driver's process")
    max_samples: int | None = Field(None, ge=1, description="a seeded subset per task; null: all")
    every: int | None = Field(
        None,
        ge=1,
        description="optimizer steps between evaluations during training, on held-out and on training "
        "samples; null: only at the end (as always with engine.zero_stage=3)",
    )
    every_samples: int = Field(64, ge=1, description="samples per task and split of one during training")
    patience: int | None = Field(
        None,
        ge=1,
        description="evaluations on the way in a row without a better checkpoint.best_by after which "
        "training ends; null: it never ends early",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="probability above which a pixel is foreground; null: the model's own (model.threshold)",
    )


class ScaleConfig(Section):
    """What the job asks of the cluster."""

    workers: int = Field(1, ge=1, description="training workers (world size); the most, with min_workers")
    min_workers: int | None = Field(
        None,
        ge=1,
        description="elastic: train with as many workers from here to `workers` as the cluster has room for "
        "and the global batch divides by; null: always `workers`",
    )
    resize_seconds: float = Field(60, ge=0, description="elastic: seconds between looks for more room")
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    resources: dict[str, float] = Field(default_factory=dict, description="custom resources per worker")


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = Field(
        None,
        description="server or sqlite:///file; null: MLFLOW_TRACKING_URI, else mlflow.db in the runs folder",
    )
    experiment: str = "train"
    parent: str | None = Field(None, description="MLflow run that this one is a child of (ablations, sweeps)")
    tags: dict[str, str] = Field(default_factory=dict, description="more tags of the MLflow run")


#: Settings that name weights or a tokenizer.
PATHS = (
    ("init", "vision"),
    ("init", "mask2former"),
    ("init", "model"),
    ("init", "optimizer"),
    ("model", "language", "path"),
    ("tokenizer", "path"),
)
#: Enough for the template and an instruction of usual length.
_TEXT_TOKENS = 192


class Config(Section):
    """A training job, whole."""

    name: str
    seed: int = 0
    build: BuildConfig | None = Field(None, description="how the quickstart builds its store")
    model: ModelConfig = Field(default_factory=ModelConfig)
    init: InitConfig = InitConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    pts: PTSConfig = PTSConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    scale: ScaleConfig = ScaleConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def threshold(self) -> float:
        """Probability above which evaluations of the run take a pixel as foreground."""
        asked = self.evaluation.threshold
        return self.model.threshold if asked is None else asked

    @model_validator(mode="before")
    @classmethod
    def _paths_are_whole(cls, values: Any) -> Any:
        """Workers of Ray Train and trials of Ray Tune have working directories of their own."""
        values = deepcopy(values)
        for *above, name in PATHS:
            section = values
            for key in above:
                section = section.get(key) if isinstance(section, dict) else None
            path = section.get(name) if isinstance(section, dict) else None
            if isinstance(path, str) and "://" not in path and not path.startswith(("timm:", "package:")):
                section[name] = str(Path(path).expanduser().absolute())
        return values

    @model_validator(mode="after")
    def _compilation_is_possible(self) -> "Config":
        if self.train.compile and self.engine.zero_stage == 3:
            raise ValueError(
                "train.compile=true cannot see through the gathering of engine.zero_stage=3; use stage 2 or "
                "less, or train.compile=false"
            )
        if self.train.compile_backend and not self.train.compile:
            raise ValueError("train.compile_backend does nothing without train.compile=true")
        return self

    @model_validator(mode="after")
    def _backbone_is_known(self) -> "Config":
        name = self.model.vision.backbone
        if name:
            from unigeoseg.modules.backbone import check_backbone  # brings torch and timm, for who names one

            check_backbone(name)
        elif self.init.vision:
            raise ValueError(
                f"init.vision={self.init.vision} are weights of a backbone, and model.vision.backbone names "
                "none; set it, or give weights of the project's Swin as init.mask2former or init.model"
            )
        return self

    @model_validator(mode="after")
    def _matrices_are_whole_for_muon(self) -> "Config":
        if self.train.optimizer == "muon" and (self.engine.zero_stage == 3 or self.engine.offload_optimizer):
            raise ValueError(
                "train.optimizer=muon turns whole matrices where they are trained: it needs "
                "engine.zero_stage=0, 1 or 2 and engine.offload_optimizer=false; or use train.optimizer=adamw"
            )
        return self

    @model_validator(mode="after")
    def _best_can_be_told(self) -> "Config":
        kept, by = self.checkpoint, f"checkpoint.best_by={self.checkpoint.best_by}"
        if kept.best_is is not None and kept.more_is_better != BEST_BY[kept.best_by]:
            raise ValueError(
                f"checkpoint.best_is={kept.best_is} with {by} would keep the worst; leave best_is out"
            )
        if not kept.by_evaluation:
            if self.evaluation.patience is not None:
                raise ValueError(
                    f"evaluation.patience={self.evaluation.patience} counts evaluations, and {by} is none of "
                    "their metrics; use checkpoint.best_by=val/gIoU, or another of them"
                )
        elif self.evaluation.every is None:
            raise ValueError(f"{by} needs evaluations on the way; set evaluation.every, in steps")
        elif self.engine.zero_stage == 3:
            raise ValueError(
                f"{by} needs evaluations on the way, and with engine.zero_stage=3 no worker has whole "
                "weights for one; use stage 2 or less, or checkpoint.best_by=loss"
            )
        return self

    @model_validator(mode="after")
    def _text_has_room(self) -> "Config":
        image, longest = self.model.image_tokens, self.tokenizer.max_length
        positions = self.model.language.max_positions
        if image >= min(longest, positions):
            raise ValueError(
                f"model.image_size={self.model.image_size} makes {image} image tokens, which leave no room "
                f"for text in tokenizer.max_length={longest} and model.language.max_positions={positions}; "
                f"set both to {image + _TEXT_TOKENS} or more, or lower the image size"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "Config":
        world, batch = self.scale.workers, self.train.global_batch
        micro_batches(batch, world, self.train.given_micro_batch, said=f"scale.workers={world}")
        if (least := self.scale.min_workers) and least > world:
            raise ValueError(
                f"scale.min_workers={least} is more than scale.workers={world}, the most; lower it"
            )
        if self.engine.offload_optimizer and not self.engine.zero_stage:
            raise ValueError(
                "engine.offload_optimizer needs ZeRO: ZeRO stage 0 keeps the whole optimizer on each device; "
                "use engine.zero_stage=1, 2 or 3, or engine.offload_optimizer=false"
            )
        return self

    @model_validator(mode="after")
    def _hierarchy_fits(self) -> "Config":
        size, world = self.engine.hpz_partition_size, self.scale.workers
        if size > 1 and self.engine.zero_stage != 3:
            raise ValueError(
                f"engine.hpz_partition_size={size} is a second copy of what stage 3 of ZeRO cuts: use "
                "engine.zero_stage=3, or leave it at 1"
            )
        if world % size:
            raise ValueError(
                f"engine.hpz_partition_size={size} does not divide scale.workers={world}: give the workers "
                "of a node, or 1"
            )
        return self

    @property
    def micro_batch(self) -> int:
        """Positions a worker holds at once; where that is chosen by memory, the most."""
        return self.train.given_micro_batch or self.train.global_batch // self.scale.workers

    def world_sizes(self) -> list[int]:
        """Numbers of workers that the run may have, ascending; one number unless it is elastic."""
        most, micro = self.scale.workers, self.train.given_micro_batch or 1
        least, batch = self.scale.min_workers or most, self.train.global_batch
        node = self.engine.hpz_partition_size
        return [n for n in range(least, most + 1) if batch % n == n % node == 0 and batch // n % micro == 0]

    def plain(self) -> dict[str, Any]:
        """The effective configuration as plain values."""
        return self.model_dump(mode="json")

    def shown(self) -> dict[str, Any]:
        """The same without passwords in URIs: what is saved, recorded and shown."""
        return dict(hide_all(self.plain()))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` on top; dictionaries merge, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        result[key] = value
    return result


def with_values(config: Config, values: Mapping[str, Any], what: str) -> Config:
    """The configuration with other values.

    Args:
        config: to start from.
        values: nested, as in a preset.
        what: where they come from, for the message.

    Raises:
        UserError: they do not fit.
    """
    try:
        return Config.model_validate(merge(config.plain(), values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the configuration"
        raise UserError(f"{what}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
