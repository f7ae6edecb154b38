"""The size of a configured model, counted on the model itself."""

from typing import Any

import torch
from torch import nn

from pipelines.config import Config
from unigeoseg.build import build_model
from unigeoseg.tokens import load_tokenizer


def describe(config: Config) -> dict[str, Any]:
    """Count parameters by top-level module.

    The model is built without memory for its weights, so that the largest preset can be described anywhere;
    only a language model given by path is read.

    Args:
        config: the job's configuration; the vocabulary is that of ``tokenizer.path``, or of the size that a
            trained tokenizer would have.

    Returns:
        ``{"modules": [{"name", "parameters", "trainable"}], "total", "trainable"}``; a tensor shared between
        modules counts in the first one alone.

    Raises:
        UserError: the language model or the tokenizer is not where the configuration says.
    """
    path = config.tokenizer.path
    vocabulary = load_tokenizer(path, config.model.mode).vocab_size if path else config.tokenizer.vocab_size
    with torch.device("cpu" if config.model.language.path else "meta"):
        model = build_model(config.model, vocabulary)
    seen: set[int] = set()
    modules = [_count(name, module, seen) for name, module in model.named_children()]
    own = nn.ParameterList(list(model.parameters(recurse=False)))
    if len(own):
        modules.append(_count("other", own, seen))
    return {
        "modules": modules,
        "total": sum(row["parameters"] for row in modules),
        "trainable": sum(row["trainable"] for row in modules),
    }


def _count(name: str, module: nn.Module, seen: set[int]) -> dict[str, Any]:
    fresh = [item for item in module.parameters() if id(item) not in seen]
    seen.update(id(item) for item in fresh)
    return {
        "name": name,
        "parameters": sum(item.numel() for item in fresh),
        "trainable": sum(item.numel() for item in fresh if item.requires_grad),
    }
