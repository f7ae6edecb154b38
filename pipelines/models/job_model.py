"""The model that a job trains: built, filled with its first weights, adapters put in."""

import contextlib
import logging

from torch import Tensor

from pipelines.config import Config
from pipelines.weights.local_copy import local_copy
from unigeoseg.build import build_model
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.causal_lm import shapes_only
from unigeoseg.modules.lora import add_lora, merge_lora
from unigeoseg.modules.undrawn import WithoutDraws
from unigeoseg.released.folder import is_released
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.weights.backbone_file import load_backbone
from unigeoseg.weights.export_file import has_words_of, load_export_weights
from unigeoseg.weights.mask2former import load_mask2former
from unigeoseg.weights.released_file import load_released_weights
from unigeoseg.weights.report import LoadReport

logger = logging.getLogger(__name__)


def make_model(config: Config, tokenizer: Tokenizer) -> tuple[UniGeoSeg, list[LoadReport]]:
    """The model at the start of a job, the same on every rank; the caller has set the random state.

    Also on resume: frozen parameters are not in checkpoints, so they come from here again.

    Returns:
        The model, and what was loaded from where (empty for random weights).

    Raises:
        UserError: weights that are missing, refused or do not fit.
    """
    init, reports = config.init, []
    start = local_copy(init.model) if init.model else None
    released = start is not None and is_released(start)
    # Where the start gives every parameter its value, none has to be drawn or read before.
    sole = init.strict and not (init.vision or init.mask2former)
    filled = start is not None and sole and (released or has_words_of(start, tokenizer))
    with contextlib.ExitStack() as stack:
        if filled:
            stack.enter_context(shapes_only())
            stack.enter_context(WithoutDraws())
        model = build_model(with_local_language(config).model, tokenizer.vocab_size)
    if init.vision:
        reports.append(load_backbone(model, local_copy(init.vision), init.strict))
    if init.mask2former:
        path = local_copy(init.mask2former)
        reports.append(load_mask2former(model, path, init.parts, init.strict))
    if start is not None:
        # Stage 3 takes each weight's part from the file's pages: no worker ever holds the whole model.
        mapped = filled and config.engine.zero_stage == 3
        if released:
            reports.append(load_released_weights(model, start, init.strict, mapped))
        else:
            reports.append(load_export_weights(model, start, init.strict, tokenizer, mapped))
    for report in reports:
        logger.info("%s", report.summary())
    lora = config.train.lora
    if lora.rank:
        add_lora(model.language.model, lora.rank, lora.alpha, lora.dropout, lora.targets, lora.embeddings)
    return model, reports


def exported_state(config: Config, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trained state as an export holds it: adapters merged into their layers."""
    lora = config.train.lora
    return merge_lora(state, lora.alpha / lora.rank) if lora.rank else state


def with_local_language(config: Config) -> Config:
    """The configuration with ``model.language.path`` on this machine."""
    path = config.model.language.path
    if path is None or "://" not in path:
        return config
    values = config.plain()
    values["model"]["language"]["path"] = str(local_copy(path))
    return Config.model_validate(values)
