"""A picture trained on once, and eight times over in one step: ``python -m tests.bf16_sums STAGE DTYPE``.

Prints the two gradient norms. The mean of eight equal gradients is each of them, and dividing by eight is
exact, so the norms are equal to the last digit where sums are.
"""

import json
import sys

from pipelines.bench.samples import bench_images, bench_tokenizer, collate
from pipelines.config import Config
from pipelines.models.job_model import make_model
from pipelines.train.engine.engine import Engine
from tests.train_runs import tiny_values

TIMES = 8


def main(stage: int, dtype: str) -> None:
    norms, engines = [], []
    for times in (1, TIMES):
        values = {
            "train.precision": "bf16",
            "train.global_batch": times,
            "train.micro_batch": 1,
            "engine.zero_stage": stage,
            "engine.accumulation_dtype": dtype,
            "scale.workers": 1,
        }
        config = Config.model_validate(tiny_values(**values))
        tokenizer = bench_tokenizer(config)
        batch = collate(config, tokenizer, bench_images(config, 1, 0))
        engines.append(Engine(config, lambda c=config, t=tokenizer: make_model(c, t)[0], 4))
        result = engines[-1].train_step(0, [batch] * times, times * len(batch))
        norms.append(result.grad_norm)
    engines[0].close()  # it made the process group that both use
    print(json.dumps(norms))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
