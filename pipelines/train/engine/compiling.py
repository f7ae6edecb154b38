"""``torch.compile`` of the model: the backend that a machine can run, and how often it had to compile.

The one place that asks torch's compiler for what it does not publish; ``tests/unit/train/test_compiling.py``
tells what an upgrade changed.
"""

import logging
from difflib import get_close_matches
from typing import TYPE_CHECKING

from unigeoseg.errors import UserError

if TYPE_CHECKING:  # the driver asks for a backend's name, and starts without these
    import torch

    from unigeoseg.model import UniGeoSeg

logger = logging.getLogger(__name__)
_INDUCTOR = "inductor"
_GRAPHS_OF_A_CODE = 64


def check_backend(name: str | None) -> None:
    """Refuses a backend that PyTorch does not have, before anything starts.

    Raises:
        UserError: with the nearest name.
    """
    if name is None:  # what follows loads the compiler
        return
    from torch._dynamo import list_backends

    known = list_backends(exclude_tags=None)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(
            f"train.compile_backend={name}: torch.compile has no such backend{hint} (it has "
            f"{', '.join(list_backends())})"
        )


def compile_model(model: "UniGeoSeg", backend: str | None, device: "torch.device") -> bool:
    """Compiles a model's large blocks in place; see :meth:`~unigeoseg.model.UniGeoSeg.enable_compilation`.

    Args:
        model: on any device.
        backend: its name; ``None``: inductor where this machine can run it, else nothing is compiled and a
            warning says why.
        device: where the model will run.

    Returns:
        Whether it will be compiled.

    Raises:
        UserError: the backend was asked for by name, and is unknown or cannot run here.
    """
    check_backend(backend)
    why = _lacking(backend or _INDUCTOR, device)
    if why is None:
        # A Swin's stages, shifted and not, are eight graphs of one code: with the limit of eight, another
        # shape of theirs would run uncompiled from then on.
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, _GRAPHS_OF_A_CODE)
        model.enable_compilation(backend or _INDUCTOR)
        return True
    if backend is not None:
        raise UserError(f"train.compile_backend={backend}: {why}")
    logger.warning("train.compile=true: %s; training goes on without it", why)
    return False


def compilations() -> dict[str, float]:
    """``graphs`` that this process has compiled so far, and the ``seconds`` that it took."""
    from torch._dynamo.utils import compilation_time_metrics, counters

    seconds = sum(compilation_time_metrics.get("_compile.compile_inner", ()))
    return {"graphs": counters["stats"]["unique_graphs"], "seconds": round(seconds, 3)}


def _lacking(backend: str, device: "torch.device") -> str | None:
    """What keeps a backend from running here, in words; ``None``: nothing."""
    if backend != _INDUCTOR:
        return None
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "inductor needs the package triton, which is not installed here"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "inductor needs a C++ compiler, and none was found: install g++, or name one in CXX"
    return None
