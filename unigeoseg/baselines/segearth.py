"""SegEarth-R1-like baseline: the description's embedding is the only mask query (arXiv 2504.09644)."""

from torch import Tensor, nn

from unigeoseg.config import ModelConfig
from unigeoseg.model import UniGeoSeg
from unigeoseg.modules.query import InstructionPooling, LocalVisionFusion
from unigeoseg.samples.batch import Batch


class DescriptionQuery(nn.Module):
    """Linear(D(B(s), Linear(res5))): the description projection alone, without the text's own half A(s)."""

    def __init__(self, language_width: int, vision_width: int, width: int, hidden: int) -> None:
        super().__init__()
        self.description = nn.Linear(language_width, width)
        self.vision = nn.Linear(vision_width, width)
        self.fusion = LocalVisionFusion(width)
        self.out = nn.Linear(width, hidden)

    def forward(self, state: Tensor, res5: Tensor, image_index: Tensor) -> Tensor:
        """``state [B, d]``, ``res5 [I, C, h, w]``, ``image_index [B]`` to ``[B, hidden]``."""
        vision = self.vision(res5.flatten(2).transpose(1, 2))
        query: Tensor = self.out(self.fusion(self.description(state), vision, image_index))
        return query


class SegEarthLike(UniGeoSeg):
    """As :class:`~unigeoseg.model.UniGeoSeg` without TATE and LKM, with :class:`DescriptionQuery`.

    Args:
        config: shapes; its ``tate`` and ``lkm`` are not used.
        vocab_size: number of token ids.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        decoder = config.decoder
        self.query = DescriptionQuery(  # type: ignore[assignment]  # takes the place of the model's own
            self.language.width, self.vision.widths[-1], decoder.query_width, decoder.hidden
        )

    def _add_text_parts(self, width: int) -> None:
        self.pooling = InstructionPooling(width)

    def _enhance(self, embedded: Tensor, batch: Batch) -> Tensor:
        return embedded

    def _instruction_state(self, states: Tensor, batch: Batch) -> Tensor:
        return self.pooling(states, batch.instruction_mask)
