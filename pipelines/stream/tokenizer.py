"""The tokenizer of a run: the configured one, or one trained on the store's own text."""

from pathlib import Path

from pipelines.config import Config
from pipelines.store.index import StoreIndex
from pipelines.store.texts import store_texts
from pipelines.weights.local_copy import local_copy
from unigeoseg.samples.prompts import template_texts
from unigeoseg.samples.tokens import Tokenizer, load_tokenizer, train_tokenizer

#: Images whose text a tokenizer is trained on; more would change it little.
TOKENIZER_IMAGES = 20_000


def prepare_tokenizer(config: Config, index: StoreIndex, folder: Path) -> Tokenizer:
    """Puts the run's tokenizer into ``folder``; one that is there already stays as it is.

    Raises:
        UserError: ``tokenizer.path`` holds none, or the store is out of reach.
    """
    if (folder / "tokenizer.json").is_file():
        return load_tokenizer(folder, config.model.mode)
    if config.tokenizer.path is not None:
        tokenizer = load_tokenizer(local_copy(config.tokenizer.path), config.model.mode)
        tokenizer.save(folder)
        return tokenizer
    texts = store_texts(index, TOKENIZER_IMAGES)
    template = template_texts(config.model.system_prompt)
    return train_tokenizer(texts, config.tokenizer.vocab_size, folder, template)
