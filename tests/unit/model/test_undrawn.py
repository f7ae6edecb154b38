"""A model that a file fills draws nothing before, and is the same model."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from pipelines.config import Config
from pipelines.models.job_model import make_model
from tests.tiny_export import write_export
from tests.train_runs import tiny_values
from tests.unit.model.conftest import tiny_config
from unigeoseg.build import build_model
from unigeoseg.config import BaselineConfig, VisionConfig
from unigeoseg.export import load_export, save_export
from unigeoseg.modules.undrawn import WithoutDraws
from unigeoseg.samples.prompts import template_texts
from unigeoseg.samples.tokens import train_tokenizer


class _Heard(TorchFunctionMode):
    """Hears what reaches torch."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def _draws(make):
    """What ``make`` gives, and whether weights were drawn (vectors of a few numbers aside)."""
    torch.manual_seed(7)
    with _Heard() as heard:
        made = make()
    return made, bool(heard.names & {"normal_", "uniform_", "kaiming_uniform_"})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision": VisionConfig(backbone="resnet18", frozen=False)},
        {"vision": VisionConfig(backbone="tf_efficientnet_lite0", frozen=False)},
        {"baseline": BaselineConfig(kind="psalm")},
        {"baseline": BaselineConfig(kind="segearth")},
    ],
    ids=["swin", "resnet", "efficientnet", "psalm", "segearth"],
)
def test_a_loaded_export_is_the_model_that_was_saved_and_nothing_was_drawn(tmp_path, changes):
    words = train_tokenizer(["a large building", "x0,y0=[0.1,0.4]"], 300, tmp_path, template_texts(""))
    model, drew = _draws(lambda: build_model(tiny_config(**changes), words.vocab_size))
    assert drew
    save_export(tmp_path, model, words)
    (loaded, _), drew = _draws(lambda: load_export(tmp_path))
    assert not drew
    for ours, theirs in (
        (loaded.named_parameters(), model.named_parameters()),
        (loaded.named_buffers(), model.named_buffers()),  # those that no file holds as well
    ):
        expected, found = dict(theirs), dict(ours)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name


def _start(folder, **values):
    return Config.model_validate(tiny_values(**{"init.model": str(folder)}, **values))


def test_a_training_from_an_export_draws_nothing_unless_something_of_it_stays_fresh(tmp_path):
    config = Config.model_validate(tiny_values())
    words = train_tokenizer(["a large building", "x0,y0=[0.1,0.4]"], 300, tmp_path / "a", template_texts(""))
    more = train_tokenizer(["another tower", "wide river bends"], 300, tmp_path / "b", template_texts(""))
    torch.manual_seed(1)
    model = build_model(config.model, words.vocab_size)
    save_export(tmp_path / "export", model, words)

    (started, _), drew = _draws(lambda: make_model(_start(tmp_path / "export"), words))
    assert not drew
    for name, value in model.state_dict().items():
        assert torch.equal(started.state_dict()[name], value), name
    for other, tokenizer in (({}, more), ({"init.strict": False}, words)):
        assert _draws(lambda v=other, t=tokenizer: make_model(_start(tmp_path / "export", **v), t))[1]


def test_truncated_normals_come_to_an_end():
    weight = torch.empty(1000).fill_(9.0)
    with WithoutDraws():
        torch.nn.init.trunc_normal_(weight, std=0.02)
        torch.nn.init.trunc_normal_(weight, mean=3.0, std=1.0, a=4.0, b=5.0)  # by another way of drawing
    assert weight.isfinite().all()


def test_only_this_thread_draws_nothing(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool, WithoutDraws():
        other = pool.submit(lambda: torch.nn.init.normal_(torch.zeros(10))).result()
        own = torch.nn.init.normal_(torch.zeros(10))
    assert other.any() and not own.any()


def test_other_exports_are_read_as_ever(tmp_path):
    model, _ = load_export(write_export(tmp_path, seed=3))
    assert all(value.isfinite().all() for value in model.state_dict().values())
