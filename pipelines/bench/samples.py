"""Batches of random images and plausible instructions, made in memory: a bench needs no store."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from pipelines.stream.collator import make_collator
from unigeoseg.samples.batch import Batch
from unigeoseg.samples.prompts import interactive_sentence, template_texts
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import Tokenizer, load_tokenizer, train_tokenizer
from unigeoseg.tasks import INTERACTIVE, REASONING, REFERRING

_REFERRING = "the large building with a grey roof beside the road in the lower left part of the image"
_REASONING = "Where would people who arrive by car leave their vehicle while they are at work in this area?"
_ANSWER = (
    "The parking lot in front of the long building: it is paved, marked with lines, and holds many cars."
)


def bench_tokenizer(config: Config) -> Tokenizer:
    """The configured tokenizer, or a small one trained on the bench's own sentences."""
    if config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path, config.model.mode)
    texts = [_REFERRING, _REASONING, _ANSWER, *template_texts(config.model.system_prompt)] * 2
    with TemporaryDirectory() as folder:
        return train_tokenizer(texts, min(config.tokenizer.vocab_size, 1024), Path(folder))


def bench_batch(
    config: Config, tokenizer: Tokenizer, size: int, seed: int = 0, instructions: int = 1
) -> Batch:
    """``size`` images with so many instructions each, the three tasks in turn."""
    return collate(config, tokenizer, bench_images(config, size, seed, instructions))


def collate(config: Config, tokenizer: Tokenizer, images: list[ImageGroup]) -> Batch:
    """Images as a batch of the configured model."""
    return make_collator(config, tokenizer)(images)


def bench_images(config: Config, size: int, seed: int = 0, instructions: int = 1) -> list[ImageGroup]:
    """The images of :func:`bench_batch`, apart."""
    rng = np.random.default_rng(seed)
    side = config.model.image_size
    groups = []
    for number in range(size):
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        mask = np.zeros((side, side), np.uint8)
        mask[side // 4 : side // 2, side // 3 : 2 * side // 3] = 1
        first = number * instructions
        samples = tuple(_sample(first + i, mask) for i in range(instructions))
        groups.append(ImageGroup(image, samples))
    return groups


def _sample(number: int, mask: NDArray[np.uint8]) -> Sample:
    name = f"bench/{number}"
    if number % 3 == 0:
        return Sample(name, REASONING, _REASONING, mask, answer=_ANSWER)
    if number % 3 == 1:
        return Sample(name, REFERRING, _REFERRING, mask)
    box = (0.33, 0.25, 0.66, 0.5)
    return Sample(name, INTERACTIVE, interactive_sentence(box=box), mask, box=box)
