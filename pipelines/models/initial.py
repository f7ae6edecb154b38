"""What a training starts from: that it is there; a released checkpoint's sizes, tokenizer, spare tensors."""

import dataclasses
import logging
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.config.job import PATHS
from pipelines.storage.filesystem import open_filesystem
from pipelines.weights.local_copy import local_copy
from pipelines.weights.references import is_reference
from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError

logger = logging.getLogger(__name__)


def with_start(config: Config) -> Config:
    """The configuration with what a released checkpoint under ``init.model`` decides; others as they are.

    The checkpoint decides ``model.mode``, the image size and every size of the model. What it does not show
    (what is frozen, dropout, the memory's weight, losses, the prompt) stays as configured. Without
    ``tokenizer.path`` its own tokenizer is taken.

    Raises:
        UserError: nothing is there, or the checkpoint is damaged or of another model.
    """
    source = config.init.model
    if source is None:  # what follows loads the model's libraries
        return config
    from unigeoseg.released.folder import is_released, released_config

    folder = local_copy(source)
    if not is_released(folder):
        return config
    model = adopt(config.model, released_config(folder))
    logger.info(
        "%s is a released checkpoint: mode released, %d pixels, language model %d x %d, %d embeddings",
        source,
        model.image_size,
        model.language.layers,
        model.language.hidden_size,
        model.language.embedding_rows,
    )
    values = config.plain()
    values["model"] = model.to_dict()
    values["init"]["model"] = source
    values["tokenizer"]["path"] = config.tokenizer.path or source
    return Config.model_validate(values)


def check_start(config: Config) -> None:
    """Refuses settings that name weights or a tokenizer where nothing is; reads and fetches nothing.

    References to a model hub are not looked up: that would need the network.

    Raises:
        UserError: names the setting.
    """
    values: Any = config.plain()
    named: dict[str, str | None] = {".".join(keys): reduce(getitem, keys, values) for keys in PATHS}
    for setting, path in named.items():
        if path is None or is_reference(path):
            continue
        fs, inside = open_filesystem(path if "://" in path else Path(path).expanduser())
        if not fs.exists(inside):
            raise UserError(f"{setting}={path}: nothing is there; check the path or the address")


def adopt(configured: ModelConfig, found: ModelConfig) -> ModelConfig:
    """``configured`` with the mode and the sizes of ``found``, a released checkpoint's configuration."""
    language = dataclasses.replace(
        found.language,
        path=configured.language.path,  # refused by name where the model is built
        initializer_range=configured.language.initializer_range,
    )
    return dataclasses.replace(
        configured,
        mode=found.mode,
        image_size=found.image_size,
        vision=dataclasses.replace(found.vision, frozen=configured.vision.frozen),
        connector=found.connector,
        tate=dataclasses.replace(configured.tate, reasoning_queries=found.tate.reasoning_queries),
        language=language,
        lkm=dataclasses.replace(configured.lkm, slots=found.lkm.slots),
        decoder=found.decoder,
    )


def keep_unused(config: Config, export: Path) -> None:
    """Puts what the released code never uses, from the start of the training, beside its export.

    So ``unigeoseg export --to released`` gives every tensor of the checkpoint back.
    """
    if config.init.model is None or config.model.mode != "released":
        return
    from unigeoseg.released.folder import is_released, read_unused, released_weights, write_unused

    try:
        folder = local_copy(config.init.model)
        unused = released_weights(folder)[1].unused if is_released(folder) else read_unused(folder)
    except UserError as error:  # hours of training are not lost over tensors that nothing reads
        logger.warning("the unused tensors of the start are not kept: %s", error)
        return
    if unused:
        write_unused(export, unused)
