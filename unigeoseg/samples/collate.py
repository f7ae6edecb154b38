"""Samples to tensors: letterboxed pixels, prompt ids with the places of the image tokens, coordinates."""

import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from unigeoseg.config import ModelConfig
from unigeoseg.errors import UserError
from unigeoseg.modules.packing import packed_places
from unigeoseg.samples.batch import Batch
from unigeoseg.samples.letterbox import Letterbox, letterbox_image, letterbox_mask
from unigeoseg.samples.prompts import PromptEncoder, PromptTokens, check_prompt
from unigeoseg.samples.released_text import ReleasedPromptEncoder
from unigeoseg.samples.sample import ImageGroup, Sample
from unigeoseg.samples.tokens import Tokenizer
from unigeoseg.tasks import INTERACTIVE, TASK_IDS

IGNORE = -100
#: Reason of a :class:`BadSample` that is as much the settings' fault as the sample's.
TOO_LONG = "too_long"


class BadSample(UserError):
    """A sample that cannot be used.

    Attributes:
        reason: short and countable, such as ``mask_size``.
        sample_id: whose.
    """

    def __init__(self, reason: str, sample_id: str, detail: str = "") -> None:
        self.reason, self.sample_id, self._detail = reason, sample_id, detail
        super().__init__(f"{sample_id}: {reason}" + (f" ({detail})" if detail else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions cross process borders by their arguments."""
        return type(self), (self.reason, self.sample_id, self._detail)


class Collator:
    """Builds a :class:`~unigeoseg.samples.batch.Batch` from images with their samples.

    Args:
        tokenizer: of the model.
        config: decides image size, number of image tokens and prompt.
        max_length: longest sequence in tokens; a longer sample is a :class:`BadSample`.
        multiple: sequences are padded to a multiple of this (``max_length`` at most) and the row of distinct
            tokens to one for each instruction, so that a compiled model meets few shapes.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: ModelConfig, max_length: int = 512, multiple: int = 1
    ) -> None:
        self._size, self._image_tokens = config.image_size, config.image_tokens
        self._pad, self._max_length, self._multiple = tokenizer.pad_id, max_length, multiple
        self._released = config.mode == "released"
        encoder = ReleasedPromptEncoder if self._released else PromptEncoder
        self._prompts = encoder(tokenizer, config.system_prompt)

    def check(self, sample: Sample, image: NDArray[np.uint8]) -> PromptTokens:
        """Refuses a sample that cannot be trained on.

        Returns:
            Its prompt, which a later call may be given to spare encoding it again.

        Raises:
            BadSample: with the reason.
        """
        if sample.mask is not None and sample.mask.shape != image.shape[:2]:
            raise BadSample(
                "mask_size", sample.sample_id, f"mask {sample.mask.shape}, image {image.shape[:2]}"
            )
        tokens = self._tokens(sample)
        if sample.task == INTERACTIVE:
            try:
                check_prompt(sample.box, sample.points)
            except UserError as error:
                raise BadSample("coordinates", sample.sample_id, str(error)) from error
        return tokens

    def __call__(
        self,
        groups: Sequence[ImageGroup],
        positions: Sequence[int] = (),
        prompts: Sequence[PromptTokens] | None = None,
    ) -> Batch:
        """One micro-batch from images in order; instructions follow their image.

        Args:
            groups: images with their samples.
            positions: of the plan.
            prompts: what :meth:`check` returned for the samples, in order; ``None``: encode them here.

        Raises:
            BadSample: a sample is too long, or its instruction empty.
        """
        size, smooth = self._size, not self._released
        images = self.pictures([group.image for group in groups])
        samples = [s for g in groups for s in g.samples]
        image_index = [i for i, g in enumerate(groups) for _ in g.samples]
        coordinates, coordinate_mask = self._coordinates(groups)
        masks = None
        if all(s.mask is not None for s in samples):
            masks = torch.from_numpy(
                np.stack([letterbox_mask(s.mask, size, smooth) for s in samples if s.mask is not None])
            )
        prompts = [self._tokens(s) for s in samples] if prompts is None else prompts
        ids, attention, image_mask, instruction_mask, labels, tokens = self._sequences(prompts)
        places, first, distinct = None, None, None
        if not self._released:  # which hides tokens, and reads whole sequences
            *packed, distinct = packed_places(
                ids,
                tokens.sum(1).tolist(),
                instruction_mask.argmax(1).tolist(),
                image_index,
                len(samples) * self._multiple if self._multiple > 1 else 1,
            )
            places, first = (torch.from_numpy(array) for array in packed)
        return Batch(
            images=torch.from_numpy(images),
            image_index=torch.tensor(image_index, dtype=torch.int64),
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(attention),
            image_mask=torch.from_numpy(image_mask),
            instruction_mask=torch.from_numpy(instruction_mask),
            labels=torch.from_numpy(labels),
            task=torch.tensor([TASK_IDS[s.task] for s in samples], dtype=torch.int64),
            coordinates=torch.from_numpy(coordinates),
            coordinate_mask=torch.from_numpy(coordinate_mask),
            keys=torch.tensor([zlib.crc32(s.sample_id.encode()) for s in samples], dtype=torch.int64),
            masks=masks,
            sample_ids=[s.sample_id for s in samples],
            positions=list(positions),
            token_mask=torch.from_numpy(tokens),
            places=places,
            first=first,
            distinct=distinct,
        )

    def pictures(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Images ``[H, W, 3]`` letterboxed for the model, uint8 ``[I, 3, S, S]``."""
        found = np.empty((len(images), 3, self._size, self._size), np.uint8)
        for planes, image in zip(found, images, strict=True):
            # Writes each channel once; a permuted copy in torch takes six times as long.
            cv2.split(letterbox_image(image, self._size, not self._released), list(planes))
        return found

    def _tokens(self, sample: Sample) -> PromptTokens:
        answer = sample.answer if sample.mask is not None else None
        try:
            parts = self._prompts.encode(sample.task, sample.instruction, answer)
        except UserError as error:
            raise BadSample("empty_instruction", sample.sample_id, str(error)) from error
        length = self._image_tokens + parts.length
        if length > self._max_length:
            raise BadSample(
                TOO_LONG,
                sample.sample_id,
                f"{self._image_tokens} image tokens and {parts.length} of text, the longest sequence is "
                f"{self._max_length}",
            )
        return parts

    def _sequences(self, prompts: Sequence[PromptTokens]) -> tuple[NDArray[np.generic], ...]:
        lengths = [self._image_tokens + p.length for p in prompts]
        longest = max(lengths)
        shape = (len(prompts), max(longest, min(self._max_length, longest + -longest % self._multiple)))
        ids = np.full(shape, self._pad, dtype=np.int64)
        labels = np.full(shape, IGNORE, dtype=np.int64)
        attention, image_mask, instruction_mask, tokens = (np.zeros(shape, dtype=bool) for _ in range(4))
        for row, parts in enumerate(prompts):
            first = len(parts.before_image)
            start = first + self._image_tokens + len(parts.after_image)
            stop = start + len(parts.instruction)
            reply = stop + len(parts.close)
            ids[row, :first] = parts.before_image
            image_mask[row, first : first + self._image_tokens] = True
            ids[row, first + self._image_tokens : start] = parts.after_image
            ids[row, start:stop] = parts.instruction
            instruction_mask[row, start:stop] = True
            ids[row, stop:reply] = parts.close
            ids[row, reply : lengths[row]] = parts.reply
            labels[row, reply : lengths[row]] = parts.labels
            tokens[row, : lengths[row]] = True
            attention[row, : lengths[row] - parts.hidden] = True
        return ids, attention, image_mask, instruction_mask, labels, tokens

    def _coordinates(self, groups: Sequence[ImageGroup]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        count = sum(len(g.samples) for g in groups)
        values = np.zeros((count, 6), dtype=np.float32)
        given = np.zeros((count, 7), dtype=bool)
        row = 0
        for group in groups:
            height, width = group.image.shape[:2]
            box = Letterbox.fit(height, width, self._size)
            for sample in group.samples:
                corners = sample.points or ()
                if sample.box is not None:
                    corners = (sample.box[:2], sample.box[2:])
                    given[row, 6] = True
                # The released code leaves coordinates relative to the image, whatever the letterbox does.
                numbers = [v for x, y in corners for v in ((x, y) if self._released else box.point(x, y))]
                values[row, : len(numbers)] = numbers
                given[row, : len(numbers)] = True
                row += 1
        return values, given
