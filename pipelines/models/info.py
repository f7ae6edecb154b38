"""The size and cost of a configured model, counted on the model itself without memory for its weights."""

from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipelines.config import Config
from pipelines.models.job_model import with_local_language
from pipelines.models.live_bytes import peak_bytes
from unigeoseg.build import build_model
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.causal_lm import shapes_only
from unigeoseg.optim.orthogonal import matrix_names
from unigeoseg.samples.tokens import load_tokenizer

#: Assumed sizes of a sample's text, in tokens, where nothing else is given.
INSTRUCTION, ANSWER = 32, 32
TEMPLATE = 64
#: Modules that run once an image, whatever the number of its instructions.
OF_IMAGE = ("vision", "connector", "pixel_decoder")
#: Modules that activation checkpointing computes again.
_RECOMPUTED = ("vision", "language.layers", "pixel_decoder")


def describe(config: Config) -> dict[str, Any]:
    """Parameters, FLOPs and activation memory by module, for one sample.

    FLOPs are those of matrix products, attention and convolutions (two per multiply-add), as
    ``torch.utils.flop_counter`` counts them on the modules' real calls; sampling, normalisation and
    element-wise work are left out. Activation bytes are what autograd keeps for the backward pass of the
    module, in the precision and with the activation checkpointing that the preset trains with; a module
    without gradients keeps nothing. Peak bytes are the most that a module's forward and backward pass hold
    at once, with what lives for a moment only and what is recomputed, without gradients of weights.

    Args:
        config: the job's configuration; the vocabulary is that of ``tokenizer.path``, or of the size that a
            trained tokenizer would have. Of a language model given by path only ``config.json`` is read.

    Returns:
        ``{"modules": [{"name", "parameters", "trainable", "matrices" (of the trainable ones, what Muon
        turns), "flops_forward", "flops_backward", "activation_bytes", "peak_bytes"}], "total", "trainable",
        "matrices", "flops_forward", "flops_backward", "activation_bytes", "assumptions"}``; a tensor shared
        between modules counts in the first one alone.

    Raises:
        UserError: the language model or the tokenizer is not where the configuration says.
    """
    model, tokens = _on_meta(config), _tokens(config)
    return _described(model, config, _costs(model, config, tokens))


def describe_both(config: Config, instruction: int = INSTRUCTION) -> dict[bool, dict[str, Any]]:
    """:func:`describe` without and with activation checkpointing, whatever the configuration has.

    FLOPs of recomputation are left out of both, as model FLOPs utilisation wants it.

    Args:
        config: of the job.
        instruction: tokens of an instruction in the language model; TATE is counted with its usual ones.
    """
    train = config.train
    configs = {
        on: config.model_copy(update={"train": train.model_copy(update={"activation_checkpointing": on})})
        for on in (False, True)
    }
    model, tokens = _on_meta(configs[False]), _tokens(config, instruction)
    plain = _costs(model, config, tokens)
    model.enable_activation_checkpointing()
    again = _costs(model, config, tokens, _RECOMPUTED, flops=False)
    recomputing = {name: cost | again.get(name, {}) for name, cost in plain.items()}
    both = ((False, plain), (True, recomputing))
    return {on: _described(model, configs[on], costs, instruction) for on, costs in both}


def _tokens(config: Config, instruction: int = INSTRUCTION) -> int:
    return config.model.image_tokens + instruction + ANSWER + TEMPLATE


def _described(
    model: UniGeoSeg, config: Config, costs: dict[str, dict[str, int]], instruction: int = INSTRUCTION
) -> dict[str, Any]:
    seen: set[int] = set()
    turned = matrix_names(model)
    matrices = {id(item) for name, item in model.named_parameters() if name in turned}
    modules = [_count(name, module, seen, matrices) | costs[name] for name, module in _modules(model)]
    single = ("name", "parameters", "peak_bytes")  # modules have their peaks one after the other
    sums = {key: sum(row[key] for row in modules) for key in modules[0] if key not in single}
    return {
        "modules": modules,
        "total": sum(row["parameters"] for row in modules),
        **sums,
        "assumptions": {
            "samples": 1,
            "image_size": config.model.image_size,
            "tokens": _tokens(config, instruction),
            "instruction_tokens": instruction,
            "labelled_tokens": ANSWER,
            "precision": config.train.precision,
            "activation_checkpointing": config.train.activation_checkpointing,
        },
    }


def flops_of_parts(config: Config, tokens: int) -> tuple[int, int]:
    """FLOPs of forward and backward pass: of an image, and of each of its instructions at ``tokens``.

    Encoder, connector and pixel decoder run once an image, the rest once an instruction. Recomputation is
    left out, as model FLOPs utilisation wants it (Chowdhery et al. 2022, PaLM, appendix B).
    """
    plain = config.model_copy(
        update={"train": config.train.model_copy(update={"activation_checkpointing": False})}
    )
    costs = _costs(_on_meta(plain), plain, tokens, memory=False)
    sums = {name: cost["flops_forward"] + cost["flops_backward"] for name, cost in costs.items()}
    image = sum(value for name, value in sums.items() if name in OF_IMAGE)
    return image, sum(sums.values()) - image


def _on_meta(config: Config) -> UniGeoSeg:
    path = config.tokenizer.path
    vocabulary = load_tokenizer(path).vocab_size if path else config.tokenizer.vocab_size
    with torch.device("meta"), shapes_only():
        model = build_model(with_local_language(config).model, vocabulary)
    if config.train.activation_checkpointing:
        model.enable_activation_checkpointing()
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    return model.to(device="meta", dtype=dtype).train()  # constant tables were made on the CPU


def _modules(model: UniGeoSeg) -> Iterator[tuple[str, nn.Module]]:
    """The model's parts in the order of a step; the language model's three parts apart."""
    language = model.language.model
    yield "vision", model.vision
    yield "connector", model.connector
    yield "language.embeddings", language.get_input_embeddings()
    for name, module in model.named_children():
        if name not in ("vision", "connector", "language", "query", "pixel_decoder", "mask_decoder"):
            yield name, module
    yield "language.layers", language.get_decoder()
    yield "language.head", language.get_output_embeddings()
    for name in ("query", "pixel_decoder", "mask_decoder"):
        yield name, getattr(model, name)
    own = nn.ParameterList(list(model.parameters(recurse=False)))
    if len(own):
        yield "other", own


def _costs(
    model: UniGeoSeg, config: Config, tokens: int, names: Collection[str] | None = None,
    flops: bool = True, memory: bool = True,
) -> dict[str, dict[str, int]]:  # fmt: skip
    """These modules, or all, called with the shapes of one sample on the meta device."""
    dtype = next(model.parameters()).dtype
    width, hidden = model.language.width, config.model.decoder.hidden

    def made(*shape: int, kind: torch.dtype = dtype, grad: bool = True) -> Tensor:
        tensor = torch.empty(shape, dtype=kind, device="meta")
        return tensor.requires_grad_(grad and kind.is_floating_point)

    side = config.model.image_size
    index = made(1, kind=torch.int64)
    trained = not config.model.vision.frozen
    sides = [(h, w) for h, w in reversed(model.pixel_decoder.shapes)]
    quarter = -(-side // config.model.vision.patch)
    features = [
        made(1, c, h, w, grad=trained)
        for c, (h, w) in zip(model.vision.widths, [(quarter, quarter), *sides], strict=True)
    ]
    text = made(1, INSTRUCTION, width)
    mask = torch.ones(1, INSTRUCTION, dtype=torch.bool, device="meta")
    levels = [made(1, hidden, h, w) for h, w in model.pixel_decoder.shapes]
    calls: dict[str, Callable[[], Any]] = {
        "vision": lambda: model.vision(made(1, 3, side, side, kind=torch.uint8)),
        "connector": lambda: model.connector(features[-1]),
        "language.embeddings": lambda: model.language.embed(made(1, tokens, kind=torch.int64)),
        "tate": lambda: model.tate(text, mask, index, made(1, 6, grad=False), made(1, 7, kind=torch.bool)),
        # A whole mask: without one, transformers asks for values, which the meta device has not.
        "language.layers": lambda: model.language(
            made(1, tokens, width), made(1, 1, tokens, tokens, kind=torch.bool)
        ),
        "language.head": lambda: model.language.model.get_output_embeddings()(made(ANSWER, width)),
        "lkm": lambda: model.lkm(made(1, tokens, width)),
        "pooling": lambda: model.pooling(
            made(1, tokens, width), torch.ones(1, tokens, dtype=torch.bool, device="meta")
        ),
        "query": lambda: model.query(made(1, width), features[-1], index),
        "pixel_decoder": lambda: model.pixel_decoder(features),
        "mask_decoder": lambda: model.mask_decoder(
            made(1, hidden),
            made(1, hidden, quarter, quarter),
            levels,
            index,
            made(1, 6, grad=False),
            made(1, 7, kind=torch.bool),
        ),
    }
    nothing = (_NO_FLOPS if flops else {}) | (_NO_MEMORY if memory else {})
    return {
        name: _measure(module, calls[name], flops, memory)
        if name in calls and _paper(model, name)
        else dict(nothing)
        for name, module in _modules(model)
        if names is None or name in names
    }


_NO_FLOPS = {"flops_forward": 0, "flops_backward": 0}
_NO_MEMORY = {"activation_bytes": 0, "peak_bytes": 0}


def _paper(model: UniGeoSeg, name: str) -> bool:
    """Text parts of other modes take other arguments; they are small and count nothing."""
    return type(model) is UniGeoSeg or name not in ("tate", "lkm", "pooling")


def _measure(module: nn.Module, call: Callable[[], Any], flops: bool, memory: bool) -> dict[str, int]:
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            alive.append(tensor)  # a freed storage's address would be given out again
            kept[storage._cdata] = storage.nbytes()
        return tensor

    count = FlopCounterMode(display=False) if flops else nullcontext()
    with count as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs = [t for t in _tensors(call()) if t.requires_grad]
    found: dict[str, int] = {}
    if forward:
        with FlopCounterMode(display=False) as backward:
            if outputs:
                torch.autograd.backward(outputs, [torch.empty_like(t) for t in outputs])
        found |= {
            "flops_forward": forward.get_total_flops(),
            "flops_backward": backward.get_total_flops(),
        }
    if memory:
        activations = sum(kept.values()) if outputs else 0
        found |= {"activation_bytes": activations, "peak_bytes": peak_bytes(module, call)}
    return found


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [t for item in output for t in _tensors(item)]


def _count(name: str, module: nn.Module, seen: set[int], matrices: set[int]) -> dict[str, Any]:
    fresh = [item for item in module.parameters() if id(item) not in seen]
    seen.update(id(item) for item in fresh)
    return {
        "name": name,
        "parameters": sum(item.numel() for item in fresh),
        "trainable": sum(item.numel() for item in fresh if item.requires_grad),
        "matrices": sum(item.numel() for item in fresh if item.requires_grad and id(item) in matrices),
    }
