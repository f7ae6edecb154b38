"""``torch.compile``: which backend, what it does to losses, and that its work is counted."""

import pytest
import torch
from torch import nn

from pipelines.train.engine.compiling import compilations, compile_model
from unigeoseg.errors import UserError

CPU = torch.device("cpu")


class Blocks(nn.Module):
    """A model of one small block: what the large one costs a compiler takes a minute."""

    def __init__(self):
        super().__init__()
        self.block = nn.Linear(3, 2)

    def enable_compilation(self, backend):
        """As the model's."""
        self.block.compile(backend=backend)

    def forward(self, x):
        """``[B, 3]`` to ``[B, 2]``."""
        return self.block(x)


def test_a_compiled_model_answers_as_before_and_its_graphs_are_counted():
    model, x = Blocks(), torch.rand(4, 3)
    plain, before = model(x), compilations()
    assert compile_model(model, "eager", CPU)
    assert torch.equal(model(x), plain)
    after = compilations()
    assert after["graphs"] == before["graphs"] + 1 and after["seconds"] > before["seconds"]
    model(x)
    assert compilations() == after
    model(x[:3])  # another shape
    assert compilations()["graphs"] == after["graphs"] + 1


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"compile_backend=inducter: .*did you mean inductor\?"):
        compile_model(Blocks(), "inducter", CPU)


_WITHOUT_COMPILER = """
import logging, torch
logging.basicConfig()
from pipelines.train.engine.compiling import compile_model
print(compile_model(None, {backend}, torch.device("cpu")))
"""


def test_without_a_compiler_training_goes_on_and_says_so(run_python):
    done = run_python(_WITHOUT_COMPILER.format(backend=None), PATH="", CXX="")
    assert done.returncode == 0 and done.stdout.strip() == "False", done.stderr
    assert "needs a C++ compiler" in done.stderr and "goes on without it" in done.stderr


def test_without_a_compiler_a_backend_asked_for_by_name_is_refused(run_python):
    done = run_python(_WITHOUT_COMPILER.format(backend="'inductor'"), PATH="", CXX="")
    assert done.returncode and "train.compile_backend=inductor: inductor needs a C++ compiler" in done.stderr
