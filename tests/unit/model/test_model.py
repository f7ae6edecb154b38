"""The whole model: independence of the batch, participation in autograd, freezing, learning, export."""

import dataclasses

import pytest
import torch

from tests.unit.model.conftest import group, tiny_config
from unigeoseg.build import build_model
from unigeoseg.config import LKMConfig, VisionConfig
from unigeoseg.errors import UserError
from unigeoseg.export import load_export, save_export
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.collate import Collator


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch_or_on_padding(model, collator):
    model.eval()
    together = model.predict(collator([group(1), group(2, 3)]))
    alone = model.predict(collator([dataclasses.replace(group(1), samples=group(1).samples[2:3])]))
    torch.testing.assert_close(together[2], alone[0], rtol=1e-4, atol=1e-4)


def test_losses_are_sums_that_do_not_depend_on_how_the_batch_is_split(model, collator):
    model.eval()
    whole = model(collator([group(1), group(2)]), torch.Generator().manual_seed(5))
    parts = [model(collator([group(s)]), torch.Generator().manual_seed(5)) for s in (1, 2)]
    torch.testing.assert_close(whole.total, parts[0].total + parts[1].total, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(whole.per_task.sum(), whole.total, rtol=1e-5, atol=1e-4)
    assert whole.counts.tolist() == [4, 2, 2]


def test_every_trainable_parameter_gets_a_gradient_from_a_single_task_batch(model, collator):
    only = dataclasses.replace(group(1), samples=group(1).samples[2:3])
    model(collator([only])).total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_frozen_encoder_stays_in_eval_mode_without_autograd(tokenizer):
    config = tiny_config(vision=VisionConfig(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 4, 4), window=2))
    model = UniGeoSeg(config, tokenizer.vocab_size).train()
    assert not model.vision.training
    model(Collator(tokenizer, config)([group(1)])).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.vision.parameters())


def test_activation_checkpointing_changes_no_gradient(model, collator):
    batch = collator([group(1)])

    def gradients():
        model.zero_grad()
        model(batch, torch.Generator().manual_seed(1)).total.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters()}

    plain = gradients()
    model.enable_activation_checkpointing()
    for name, grad in gradients().items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow  # tracing alone takes minutes on two cores
@pytest.mark.parametrize("padded", [False, True])
def test_compilation_changes_no_loss_and_no_gradient(tokenizer, padded):
    """The graphs alone; generating code for them takes minutes on a CPU."""
    config = tiny_config()
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, padded_windows=padded))
    model = UniGeoSeg(config, tokenizer.vocab_size)
    batch = Collator(tokenizer, config)([group(1)])

    def losses_and_gradients():
        model.zero_grad()
        total = model(batch, torch.Generator().manual_seed(1)).total
        total.backward()
        return total.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}

    (plain, expected), names = losses_and_gradients(), list(model.state_dict())
    model.enable_activation_checkpointing()
    model.enable_compilation(backend="aot_eager")
    assert list(model.state_dict()) == names
    compiled, found = losses_and_gradients()
    torch.testing.assert_close(compiled, plain)
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("size", "padded"), [(36, False), (36, True), (37, True)])
def test_the_smallest_images(tokenizer, size, padded):
    config = tiny_config(image_size=size)
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, padded_windows=padded))
    model = build_model(config, tokenizer.vocab_size).eval()
    assert model.predict(Collator(tokenizer, config)([group(1)])).shape[1:] == (size, size)


@pytest.mark.parametrize(
    ("size", "remedy"), [(8, "the least is 36"), (32, "the least is 36"), (66, "64 or 68")]
)
def test_other_image_sizes_are_refused(tokenizer, size, remedy):
    with pytest.raises(UserError, match=rf"image_size={size} .*{remedy}"):
        build_model(tiny_config(image_size=size), tokenizer.vocab_size)


def test_lambda_zero_equals_no_memory_exactly(tokenizer):
    results = []
    for lkm in (LKMConfig(slots=0), LKMConfig(slots=4, weight=0.0)):
        torch.manual_seed(0)
        config = tiny_config(lkm=lkm)
        model = UniGeoSeg(config, tokenizer.vocab_size).eval()
        results.append(model.predict(Collator(tokenizer, config)([group(1)])))
    assert torch.equal(*results)


def test_it_overfits_a_few_samples(model, collator):
    batch = collator([group(1)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(80):
        loss = model(batch, torch.Generator().manual_seed(step)).total / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    predicted, truth = model.predict(batch) > 0, batch.masks.bool()
    iou = (predicted & truth).sum((1, 2)) / (predicted | truth).sum((1, 2))
    assert iou.min() > 0.9, iou


def test_export_round_trip_predicts_the_same(model, tokenizer, collator, tmp_path):
    model.eval()
    batch = collator([group(3)])
    save_export(tmp_path, model, tokenizer)
    loaded, again = load_export(tmp_path)
    assert again.vocab_size == tokenizer.vocab_size
    assert torch.equal(loaded.predict(batch), model.predict(batch))


def test_a_truncated_export_is_refused_with_its_name(model, tokenizer, tmp_path):
    save_export(tmp_path, model, tokenizer)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_export(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_export(tmp_path)
