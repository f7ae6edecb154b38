"""The GPU kernels of deformable sampling, where there is no GPU: interpreted, and compiled for one."""

import os
import subprocess
import sys

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton comes with GPU builds of torch only")


def test_values_and_gradients_are_those_of_grid_sample():
    """In a process of its own: the interpreter has to be chosen before Triton is imported."""
    device = ["cuda"] if torch.cuda.is_available() else []
    environment = {**os.environ, **({} if device else {"TRITON_INTERPRET": "1"})}
    command = [sys.executable, "-m", "tests.deformable_kernels", *device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("channels") == 4


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("name", ["_read_kernel", "_spread_kernel"])
def test_the_kernels_compile_for_a_gpu_with_wide_loads_and_additions(name, dtype):
    """What the interpreter bears and the compiler does not; single loads would take several times as long."""
    from unigeoseg.modules import deformable_gpu

    kernel = getattr(deformable_gpu, name)
    sizes = {"LEVELS": 3, "POINTS": 4, "QUERIES": 32, "CHANNELS": 32}
    numbers = ("positions", "queries", "heads", "channels")
    kinds = {"levels": "*i32", "reference": "*fp32", "d_value": "*fp32"}
    arguments = kernel.arg_names
    signature = {
        n: "constexpr" if n in sizes else "i32" if n in numbers else kinds.get(n, f"*{dtype}")
        for n in arguments
    }
    aligned = [i for i, n in enumerate(arguments) if n not in sizes and n != "heads"]
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(arguments.index(n),): value for n, value in sizes.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    code = triton.compile(source, target=target).asm["ptx"]
    assert "ld.global.v4.b32" in code
    assert ("add.v4.f32" in code) == (name == "_spread_kernel")
