"""Options beyond the paper: adapters, layer-wise rates, a learned lambda. All are off by default."""

import dataclasses

import pytest
import torch

from pipelines.config import Config
from pipelines.config.training import TrainConfig
from pipelines.models.job_model import exported_state
from pipelines.train.engine.optimizer import parameter_groups
from tests.train_runs import tiny_values
from tests.unit.model.conftest import group, tiny_config
from unigeoseg.build import build_model
from unigeoseg.config import LKMConfig, VisionConfig
from unigeoseg.errors import UserError
from unigeoseg.modules.lkm import LatentKnowledgeMemory
from unigeoseg.modules.lora import add_lora, merge_lora
from unigeoseg.optim.layer_scales import encoder_scales
from unigeoseg.samples.collate import Collator


def test_all_are_off_by_default():
    config = Config(name="x")
    assert config.train.lora.rank == 0
    assert config.train.encoder_lr == config.train.encoder_lr_decay == 1.0
    assert config.model.vision.frozen and not config.model.lkm.learned
    assert config.init.model is None and config.init.mask2former is None


@pytest.fixture
def adapted(model):
    base = {n: p.detach().clone() for n, p in model.language.model.named_parameters()}
    add_lora(model.language.model, 4, 8.0, 0.0, (), True)
    return model, base


def test_fresh_adapters_change_nothing_and_train_alone(model, collator):
    batch = collator([group(1)])
    model.eval()
    before = model.predict(batch)
    add_lora(model.language.model, 4, 8.0, 0.0, (), True)
    assert torch.equal(model.predict(batch), before)
    model.train()
    model(batch).total.backward()
    language = dict(model.language.model.named_parameters())
    trained = {n for n, p in language.items() if p.requires_grad}
    assert all("lora_" in n or "embed_tokens" in n or "lm_head" in n for n in trained)
    assert {n.split(".")[-4] for n in trained if "lora_A" in n} >= {"q_proj", "v_proj", "fc1", "fc2"}
    assert all(language[n].grad is not None for n in trained)
    assert all(p.grad is None for n, p in language.items() if n not in trained)
    assert all(p.requires_grad for n, p in model.named_parameters() if not n.startswith("language."))


def test_merged_adapters_compute_the_same_without_peft(adapted, config, tokenizer, collator):
    model, base = adapted
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.language.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    batch = collator([group(1)])
    model.eval()
    plain = build_model(config, tokenizer.vocab_size).eval()
    plain.load_state_dict(merge_lora(model.state_dict(), 8.0 / 4))
    torch.testing.assert_close(plain.predict(batch), model.predict(batch), rtol=1e-4, atol=1e-4)
    merged = dict(plain.language.model.named_parameters())
    assert not torch.equal(merged["model.layers.0.mlp.fc1.weight"], base["model.layers.0.mlp.fc1.weight"])
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    lora = Config.model_validate(tiny_values(**{"train.lora": {"rank": 4, "alpha": 8.0}}))
    assert exported_state(lora, model.state_dict()).keys() == plain.state_dict().keys()


def test_adapters_on_unknown_layers_are_refused_with_the_names_there_are(model):
    with pytest.raises(UserError, match=r"no linear layer qkv; there are .*fc1.*q_proj"):
        add_lora(model.language.model, 4, 8.0, 0.0, ("qkv",), False)


def test_layer_wise_rates_fall_from_the_last_block_down(tokenizer):
    vision = VisionConfig(embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 4, 4), window=2, frozen=False)
    model = build_model(tiny_config(vision=vision), tokenizer.vocab_size)
    scales = encoder_scales(model, 0.1, 0.5)
    expected = {
        "vision.swin.patch_embed.proj.weight": 5,
        "vision.swin.layers.0.blocks.0.mlp.fc1.weight": 4,
        "vision.norms.0.weight": 4,
        "vision.swin.layers.1.downsample.reduction.weight": 3,
        "vision.swin.layers.1.blocks.0.attn.qkv.bias": 3,
        "vision.swin.layers.1.blocks.1.norm1.weight": 2,
        "vision.norms.1.bias": 2,
        "vision.swin.layers.3.blocks.0.norm2.weight": 0,
        "vision.norms.3.weight": 0,
    }
    for name, below in expected.items():
        assert scales[name] == pytest.approx(0.1 * 0.5**below), name
    train = TrainConfig(encoder_lr=0.1, encoder_lr_decay=0.5)
    groups, factors = parameter_groups(model, train)
    assert sum(len(g["params"]) for g in groups) == sum(1 for _ in model.parameters())
    assert sorted(factors) == pytest.approx(sorted([0.1 * 0.5**k for k in range(6)] + [1.0]))
    groups, factors = parameter_groups(model, TrainConfig(embedding_lr=5))
    words = {id(p) for p in groups[factors.index(5.0)]["params"]}
    language = model.language.model
    assert sorted(factors) == [1.0, 5.0]
    assert words == {
        id(p)
        for layer in (language.get_input_embeddings(), language.get_output_embeddings())
        for p in layer.parameters()
    }
    groups, factors = parameter_groups(model, TrainConfig())
    assert factors == [1.0]
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in model.parameters()]


def test_a_frozen_encoder_is_in_no_group(tokenizer):
    vision = dataclasses.replace(tiny_config().vision, frozen=True)
    model = build_model(tiny_config(vision=vision), tokenizer.vocab_size)
    groups, factors = parameter_groups(model, TrainConfig(encoder_lr=0.1))
    assert factors == [1.0]
    frozen = {id(p) for p in model.vision.parameters()}
    assert not frozen & {id(p) for g in groups for p in g["params"]}


def test_a_learned_lambda_starts_at_the_weight_and_learns():
    torch.manual_seed(0)
    learned = LatentKnowledgeMemory(LKMConfig(weight=0.2, learned=True), 8)
    fixed = LatentKnowledgeMemory(LKMConfig(weight=0.2), 8)
    fixed.memory.data = learned.memory.data.clone()
    states = torch.randn(2, 5, 8)
    torch.testing.assert_close(learned(states), fixed(states))
    learned(states).sum().backward()
    assert learned.gate.grad.abs() > 0
    for config in (LKMConfig(weight=0.0, learned=True), LKMConfig(slots=0, learned=True)):
        with pytest.raises(UserError, match="learned"):
            LatentKnowledgeMemory(config, 8)


def test_bf16_weights_train(tokenizer):
    """Weights in bfloat16 and buffers in float32, as DeepSpeed has them: finite, and the loss falls."""
    config = tiny_config(vision=dataclasses.replace(tiny_config().vision, depths=(2, 1, 1, 1)))
    model = build_model(config, tokenizer.vocab_size)
    assert any(name.endswith("attn_mask") for name, _ in model.named_buffers())
    batch = Collator(tokenizer, config)([group(1)])
    masters = {n: p.detach().clone() for n, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    optimizer = torch.optim.AdamW(masters.values(), lr=3e-3)
    losses = []
    for step in range(12):
        model.zero_grad()
        loss = model(batch, torch.Generator().manual_seed(step)).total / len(batch)
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            masters[name].grad = parameter.grad.float()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(masters[name])
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
