"""Nothing in the forward pass asks a tensor for its values: on a GPU each question waits for all kernels.

The model runs on tensors without values, which refuse such questions (``.item()``, ``nonzero``, boolean
indexing, ``bincount``). Its decoders' CPU kernels ask in the backward pass; those of a GPU are others.
"""

import copy
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from pipelines.bench.samples import bench_batch, bench_tokenizer
from pipelines.config import Config
from pipelines.models.job_model import make_model
from tests.train_runs import tiny_values
from unigeoseg.modules.where import Labelled, Where, Window

PAPER = [
    {},
    {"model.loss.sampling": "uniform"},
    {"model.loss.sampling": "dense", "model.decoder.prompt_maps": True, "model.decoder.coordinates": True},
    {"model.connector.coordinates": True, "model.tate.dropout": 0.1, "train.activation_checkpointing": True},
]


def without_values(thing, mode):
    """The same of tensors that have a shape, a type and a device alone."""
    if isinstance(thing, torch.Tensor):
        return mode.from_tensor(thing)
    if dataclasses.is_dataclass(thing):
        fields = {f.name: without_values(getattr(thing, f.name), mode) for f in dataclasses.fields(thing)}
        return dataclasses.replace(thing, **fields)
    return thing


def model_without_values(model, mode):
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(mode.from_tensor(parameter.detach())))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, mode.from_tensor(buffer))
    return model


def run(options, located=True):
    config = Config.model_validate(tiny_values(**options))
    tokenizer = bench_tokenizer(config)
    model = make_model(config, tokenizer)[0].train()
    batch = bench_batch(config, tokenizer, 2, instructions=3)
    if located:
        batch = dataclasses.replace(batch, where=batch.located())
    mode = FakeTensorMode()
    model, batch = model_without_values(model, mode), without_values(batch, mode)
    with mode:
        return model(batch, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", PAPER, ids=["uncertain", "uniform", "dense", "dropout"])
def test_a_forward_pass_asks_for_no_value(options):
    losses = run(options)
    assert losses.total.shape == () and losses.counts.shape == (3,)


def test_the_test_would_notice():
    with pytest.raises((DataDependentOutputException, GuardOnDataDependentSymNode, RuntimeError)):
        run({}, located=False)


def test_a_batch_is_located_once_before_it_moves():
    config = Config.model_validate(tiny_values())
    batch = bench_batch(config, bench_tokenizer(config), 2)
    assert batch.where is None
    moved = batch.to("cpu")
    assert moved.where is not None and moved.to("cpu").where.image is moved.where.image


@pytest.mark.parametrize("seed", range(5))
def test_indices_are_those_of_the_masks(seed):
    rng = torch.Generator().manual_seed(seed)
    rows, length, width = 4, 9, 3
    window = torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):
        start, count = (int(torch.randint(1, 4, (), generator=rng)) for _ in range(2))
        window[row, start : start + count] = True
    labels = torch.randint(-3, 6, (rows, length), generator=rng).clamp(min=-1)
    labels[labels < 0] = -100
    image = torch.rand(rows, length, generator=rng) < 0.3
    task = torch.randint(0, 3, (rows,), generator=rng)
    where = Where.of(image, window, labels, task)
    tokens = torch.randn(rows, length, width, generator=rng)

    longest = int(window.sum(1).max())
    taken = where.instruction.take(tokens)
    assert taken.shape == (rows, longest, width)
    for row in range(rows):
        own = tokens[row, window[row]]
        assert torch.equal(taken[row, : len(own)], own)
        assert where.instruction.given[row].tolist() == [n < len(own) for n in range(longest)]
    new = torch.randn(rows, longest, width, generator=rng)
    want = tokens.masked_scatter(window[..., None], new[where.instruction.given])
    assert torch.equal(Window.of(window).put(tokens, new), want)
    scattered = torch.randn(int(image.sum()), width, generator=rng)
    flat = tokens.flatten(0, 1).index_copy(0, where.image, scattered).view_as(tokens)
    assert torch.equal(flat, tokens.masked_scatter(image[..., None], scattered))

    found = [
        (row, labels[row, column], tokens[row, column - 1].tolist())
        for row in range(rows)
        for column in range(1, length)
        if labels[row, column] >= 0
    ]
    labelled = Labelled.of(labels)
    assert labelled.rows.tolist() == [row for row, _, _ in found]
    assert labelled.targets.tolist() == [int(label) for _, label, _ in found]
    assert tokens.flatten(0, 1)[labelled.states].tolist() == [state for _, _, state in found]
    assert labelled.counts.tolist() == [sum(row == r for r, _, _ in found) for row in range(rows)]
    assert where.tasks.tolist() == [int((task == t).sum()) for t in range(3)]
