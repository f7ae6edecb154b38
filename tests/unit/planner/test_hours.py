"""Hours and cost of three presets against arithmetic by hand: shapes, peaks and prices written out."""

import json

import pytest
import yaml
from click.testing import CliRunner

from jobs.plan import plan as command
from jobs.settings import load_config
from pipelines.plan import Plan
from pipelines.store.index import StoreIndex
from tests.tiny_store import write_store
from tests.train_runs import ROOT, tiny_values

#: Tokens of an instruction: the image's 64, and 128 assumed for its text, of which 32 are labelled.
TOKENS, LABELLED = 64 + 128, 32
STEPS = 50_000
#: A GPU node of ray_cluster.yaml is a p4d.24xlarge: eight A100, FLOP/s in bfloat16, US dollars an hour.
A100, P4D, MFU = 312e12, 21.96, 0.2


def swin(embed, depths, window, channels=3, padding_row=0):
    """FLOPs of the encoder's forward pass at 512 pixels, two a multiply-add; and of its first layer."""
    first = 2 * 128**2 * 16 * channels * embed
    total = first
    for stage, depth in enumerate(depths):
        side, width = 128 >> stage, embed << stage
        padded = -(-side // window) * window
        projections = 2 * (side**2 + padding_row) * 3 * width**2 + 2 * side**2 * width**2
        total += depth * (projections + 4 * padded**2 * window**2 * width + 2 * side**2 * 8 * width**2)
        if stage < 3:
            total += 2 * (side // 2) ** 2 * 4 * width * 2 * width
    return total, first


def language(layers, width, weights, rows):
    """FLOPs of forward and backward pass, thrice the forward pass: layers with so many weights, the head."""
    each = 2 * TOKENS * weights + 4 * TOKENS**2 * width
    return 3 * (layers * each + 2 * LABELLED * width * rows)


def prompts(hidden, layers, maps=6):
    """FLOPs of drawn prompts at 512 pixels: weights of the maps, the masks, and what attention looks at."""
    predictions = layers + 1
    masks = 2 * predictions * maps * 128**2  # the maps themselves have no gradient
    looked_at = 2 * maps * sum(side**2 for side in (16, 32, 64)) * layers // 3
    return 3 * 2 * hidden * maps * predictions + 2 * masks + looked_at


def flops(preset):
    """Of an image, and of an instruction.

    The literals are what a FlopCounterMode shows of forward and backward pass: connector and pixel decoder;
    text enhancement, knowledge memory, pooling, query and mask decoder.
    """
    frozen, _ = swin(128, (2, 2, 18, 2), 12, padding_row=1)
    trained, first = swin(64, (2, 2, 6, 2), 8, channels=5)
    return {
        "paper": (
            frozen + 35_433_480_192 + 209_555_816_448,
            language(24, 2048, 4 * 2048**2 + 2 * 2048 * 8192, 51_200) + 4_553_684_992,
        ),
        # The first layer of a trained encoder has no gradient of its input: twice, not thrice.
        "small": (
            3 * trained - first + 2_063_728_640 + 83_176_194_048,
            language(4, 256, 4 * 256**2 + 2 * 256 * 1024, 2_048) + 2_006_523_904 + prompts(192, 6),
        ),
        "deepseek7b": (
            frozen + 103_079_215_104 + 209_555_816_448,
            language(30, 4096, 4 * 4096**2 + 3 * 4096 * 11_008, 102_400) + 11_838_511_104,
        ),
    }[preset]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("hours") / "store", per_image=(4, 4, 3))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder as `model.language.path` wants it, with DeepSeek-7B's shapes."""
    folder = tmp_path_factory.mktemp("language")
    shapes = {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 30,
        "vocab_size": 102_400,
    }
    heads = {"num_attention_heads": 32, "num_key_value_heads": 32, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **shapes, **heads}))
    seven = (f"model.language.path={folder}", "tokenizer.path=null", "tokenizer.vocab_size=102400")
    return {"deepseek7b": seven}


def drawn(preset, store, sets, steps):
    """Instructions that a run really draws in its first steps, counted one by one."""
    config = load_config(preset, [*sets, f"train.steps={steps}"])
    plan = Plan.from_config(StoreIndex.open(str(store), "train"), config)
    return sum(len(plan.batch(step).rows) for step in range(steps))


@pytest.mark.parametrize("preset", ["paper", "small", "deepseek7b"])
def test_hours_and_cost_are_those_of_arithmetic_by_hand(preset, store, sets):
    more = sets.get(preset, ())
    given = [word for text in (*more, f"train.steps={STEPS}") for word in ("--set", text)]
    given = ["--store", str(store), "--preset", preset, "--cluster", str(ROOT / "ray_cluster.yaml"), *given]
    called = CliRunner().invoke(command, [*given, "--mfu", str(MFU), "--json"], standalone_mode=False)
    assert called.exception is None, called.exception
    told = json.loads(called.stdout)
    images, (of_image, of_instruction) = STEPS * 16, flops(preset)
    instructions = told["instructions"]
    if preset == "small":
        sample = 300
        assert instructions == pytest.approx(STEPS / sample * drawn(preset, store, more, sample), rel=0.02)
        assert 2 * images < instructions < 4 * images
    else:
        assert instructions == images
    workers = {"paper": 8, "small": 1, "deepseek7b": 8}[preset]
    seconds = (images * of_image + instructions * of_instruction) / (workers * A100 * MFU)
    requests = images / 1000 * 0.0004
    for row in told["needs"]["groups"]:
        share = 0.4 if row["name"] == "gpu_spot" else 1.0
        assert row["hours"] == pytest.approx(seconds / 3600, rel=1e-6)
        assert row["cost"] == pytest.approx(seconds / 3600 * P4D * share + requests, rel=1e-6)
        assert row["samples_per_second"] == pytest.approx(instructions / seconds, rel=1e-6)


@pytest.fixture(scope="module")
def needs(store, tmp_path_factory):
    """Calls the command on a small model; returns the line, or what it told as JSON."""
    preset = tmp_path_factory.mktemp("tiny") / "p.yaml"
    values = {"scale.gpus_per_worker": 1, "scale.workers": 1, "train.precision": "bf16"}
    preset.write_text(yaml.safe_dump(tiny_values(**values)))

    def call(*more):
        given = ["--store", str(store), "--preset", str(preset), "--cluster", str(ROOT / "ray_cluster.yaml")]
        called = CliRunner().invoke(command, [*given, *more], standalone_mode=False)
        assert called.exception is None, called.exception
        return called.stdout

    return call


def test_recomputation_changes_memory_and_not_hours(needs):
    told = [
        json.loads(needs("--set", f"train.activation_checkpointing={on}", "--json"))["needs"]["groups"][0]
        for on in ("true", "false")
    ]
    assert told[0]["hours"] == told[1]["hours"] and told[0]["device_bytes"] < told[1]["device_bytes"]


def test_cost_names_what_it_leaves_out(needs):
    text = needs("--set", "train.precision=fp32")
    (line,) = [line for line in text.splitlines() if line.startswith("not in USD:")]
    for part in (
        "the head (m7i.2xlarge, 0.40 an hour)",
        "nodes of cpu (m7i.4xlarge, 0.81 an hour each)",
        "disks",
    ):
        assert part in line
    assert "train.precision=fp32" in text  # the GPUs' peak is that of bfloat16
