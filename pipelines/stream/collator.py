"""The collator of a job: what its batches look like is said in one place."""

from pipelines.config import Config
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.tokens import Tokenizer


def make_collator(config: Config, tokenizer: Tokenizer) -> Collator:
    """What turns a job's samples into its batches."""
    return Collator(tokenizer, config.model, config.tokenizer.max_length, config.data.length_multiple)
