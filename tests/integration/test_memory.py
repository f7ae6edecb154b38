"""The planner's memory against real steps of the engine, under every ZeRO stage, through the command."""

import json

import pytest

from tests.cluster_commands import unigeoseg

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
IMAGE = {"model.image_size": 256, "data.instructions_per_image": 2, "scale.cpus_per_worker": 1}
#: 74 million parameters: states decide, and the libraries' own memory is a small part.
STATES = {
    **IMAGE,
    "model.language.hidden_size": 768,
    "model.language.heads": 12,
    "model.language.layers": 6,
    "model.language.intermediate_size": 3072,
}
#: A CPU without bfloat16 arithmetic is slow: few samples.
SHORT = {**STATES, "model.image_size": 128, "data.instructions_per_image": 1}


@pytest.mark.parametrize(
    ("size", "batch", "precision", "workers", "stages", "checkpointing"),
    [
        (STATES, 2, "fp32", 1, "0,2,3", "off"),
        (STATES, 2, "fp32", 2, "0,1,2,3", "off"),
        (SHORT, 1, "bf16", 1, "2,3", "off"),
        ({**IMAGE, "train.optimizer": "muon"}, 6, "fp32", 1, "0,2", "both"),  # 25 million: activations decide
    ],
)
def test_planned_memory_is_within_a_fifth(size, batch, precision, workers, stages, checkpointing):
    size = {"train.optimizer": "adamw", **size}  # of which the stages divide most
    sets = [text for key, value in size.items() for text in ("--set", f"{key}={value}")]
    done = unigeoseg(
        *("bench", "memory", "--preset", "small", *sets, "--set", f"train.precision={precision}"),
        *(
            "--stages",
            stages,
            "--checkpointing",
            checkpointing,
            "--workers",
            workers,
            "--batch",
            batch,
            "--json",
        ),
        seconds=600,
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    ratios = {row["name"]: round(row["ratio"], 3) for row in json.loads(done.stdout)["rows"]}
    print(f"\n{precision}, {workers} worker(s): planned to measured {ratios}")
    assert all(0.8 <= ratio <= 1.2 for ratio in ratios.values()), ratios
