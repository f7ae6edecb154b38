"""Our prompt and collation against the sequences that the released reader made."""

import numpy as np
import torch

from unigeoseg.released.fixture import Fixture
from unigeoseg.samples.batch import Batch
from unigeoseg.samples.collate import Collator
from unigeoseg.samples.prompts import parse_coordinates
from unigeoseg.samples.released_tokenizer import load_released_tokenizer
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.tasks import TASKS

_TASK_NAMES = {"interactive": "intera", "referring": "ref", "reasoning": "reason"}


def compare_prompts(fixture: Fixture, name: str, batch: Batch) -> dict[str, float | bool]:
    """Every recorded text through our collator; ``max_abs`` counts the sequences that none of them gives.

    A sequence counts as given when ids, labels, masks and coordinates are all equal.
    """
    tokenizer = load_released_tokenizer(fixture.folder / "tokenizer")
    collator = Collator(tokenizer, fixture.config, fixture.config.language.max_positions)
    size = fixture.config.image_size
    image = np.zeros((size, size, 3), dtype=np.uint8)
    made = [
        collator([ImageGroup(image, (_sample(text, image),))])
        for text in fixture.texts()
        if text["prompt_type"] in _TASK_NAMES.values()
    ]
    missing = sum(not any(_equal(one, batch, row) for one in made) for row in range(len(batch)))
    return {"max_abs": float(missing), "max_rel": missing / len(batch), "ok": missing == 0}


def _sample(text: dict[str, object], image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Sample:
    kinds = {short: task for task, short in _TASK_NAMES.items()}
    content = text["question"]
    assert isinstance(content, dict)
    question, reasons = str(content["question"][0]), content["reason"]
    box, points = parse_coordinates(question)
    return Sample(
        sample_id=question,
        task=kinds[str(text["prompt_type"])],
        instruction=question,
        mask=np.zeros(image.shape[:2], dtype=np.uint8),
        answer=str(reasons[0]) if reasons else "",
        box=box,
        points=points,
    )


def _equal(one: Batch, batch: Batch, row: int) -> bool:
    """Whether the single sequence of ``one`` is row ``row`` of ``batch``, padding aside."""
    assert one.token_mask is not None and batch.token_mask is not None
    length = int(one.token_mask.sum())
    if int(batch.token_mask[row].sum()) != length or TASKS[int(one.task[0])] != TASKS[int(batch.task[row])]:
        return False
    text = ~one.image_mask[0, :length]
    same = [torch.equal(one.input_ids[0, :length][text], batch.input_ids[row, :length][text])]
    for field in ("labels", "attention_mask", "image_mask", "instruction_mask"):
        same.append(torch.equal(getattr(one, field)[0, :length], getattr(batch, field)[row, :length]))
    same.append(torch.equal(one.coordinates[0], batch.coordinates[row]))
    same.append(torch.equal(one.coordinate_mask[0], batch.coordinate_mask[row]))
    return all(same)
