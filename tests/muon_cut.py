"""Muon on flat tensors that two ranks hold a part of each, against the same matrices whole.

``torchrun --nproc-per-node 2 -m tests.muon_cut``: fails on the first cut that changes a weight.
"""

import torch
import torch.distributed as dist
from torch import nn

from pipelines.train.engine.muon import MuonAdamW
from pipelines.train.engine.spans import Span

SHAPES = {"wide": (12, 40), "tall": (40, 12), "square": (16, 16), "filter": (24, 4, 3, 3)}


def main() -> None:
    """Cuts through each matrix in turn, at its rim and within."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    sizes = {name: torch.Size(shape).numel() for name, shape in SHAPES.items()}
    begins, total = {}, 0
    for name, size in sizes.items():
        begins[name], total = total, total + size
    cuts = sorted({begin + part for name, begin in begins.items() for part in (0, 1, 7, sizes[name] // 2)})
    for cut in cuts:
        whole = {n: nn.Parameter(v) for n, v in _values(0).items()}
        joined = torch.cat([p.detach().flatten() for p in whole.values()])
        low, high = (0, cut) if rank == 0 else (cut, total)
        flat = nn.Parameter(joined[low:high].clone())
        spans = []
        for name, begin in begins.items():
            first, last = max(low, begin), min(high, begin + sizes[name])
            if first < last:
                spans.append(Span(name, SHAPES[name], first - begin, last - first, flat, first - low))
        settings = {"lr": 0.1, "weight_decay": 0.1}
        own = MuonAdamW([{"params": [flat], "names": set(SHAPES), "muon": True}], **settings)
        own.place(spans)
        each = MuonAdamW([{"params": list(whole.values()), "names": set(SHAPES), "muon": True}], **settings)
        for step in (1, 2):
            gradients = _values(step)
            flat.grad = torch.cat([g.flatten() for g in gradients.values()])[low:high].clone()
            for name, gradient in gradients.items():
                whole[name].grad = gradient
            own.step()
            each.step()
        expected = torch.cat([p.detach().flatten() for p in whole.values()])[low:high]
        torch.testing.assert_close(flat.detach(), expected, rtol=1e-4, atol=1e-5, msg=f"cut at {cut}")
    dist.destroy_process_group()


def _values(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


if __name__ == "__main__":
    main()
