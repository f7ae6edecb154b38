"""PSALM-like baseline: learned mask queries, of which the [SEG] embedding picks one (arXiv 2403.14598)."""

import torch
from torch import Tensor, nn

from unigeoseg.baselines.query_set import QuerySetDecoder
from unigeoseg.config import ModelConfig
from unigeoseg.losses.mask_watch import watch_masks
from unigeoseg.losses.terms import Losses, cell_shares, mask_losses
from unigeoseg.metrics import logit
from unigeoseg.model import Seen, UniGeoSeg, sum_losses
from unigeoseg.modules.coordinates import feature_sides
from unigeoseg.samples.batch import Batch


class SegEmbedding(nn.Module):
    """The [SEG] token's state as the embedding that conditions and classifies the queries."""

    def __init__(self, language_width: int, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(language_width, hidden)

    def forward(self, state: Tensor, res5: Tensor, image_index: Tensor) -> Tensor:
        """``state [B, d]`` to ``[B, hidden]``; the image is read by the decoder alone."""
        embedded: Tensor = self.out(state)
        return embedded


class PsalmLike(UniGeoSeg):
    """As :class:`~unigeoseg.model.UniGeoSeg` without TATE, LKM and pooling, with a set of queries.

    In training the query that fits an instruction's target best (by class, BCE and dice, as Mask2Former's
    matcher weighs them; with one target the Hungarian matching is a minimum) takes the mask losses of its
    level, and the scores learn to name it. In prediction the query of the highest score answers.

    Args:
        config: shapes; ``baseline.queries`` and ``baseline.class_weight`` count, ``tate`` and ``lkm`` do not.
        vocab_size: number of token ids.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        sides = list(feature_sides(config.image_size, config.vision.patch))
        # They take the places of the model's own parts.
        self.query = SegEmbedding(self.language.width, config.decoder.hidden)  # type: ignore[assignment]
        decoder = QuerySetDecoder(config.decoder, sides, config.baseline.queries)
        self.mask_decoder = decoder  # type: ignore[assignment]

    def _add_text_parts(self, width: int) -> None:
        """There are none."""

    def _enhance(self, embedded: Tensor, batch: Batch) -> Tensor:
        return embedded

    def _drawn_prompts(self, batch: Batch) -> tuple[Tensor, ...]:
        """It has no maps of prompts, whatever the configuration says."""
        return ()

    def _instruction_state(self, states: Tensor, batch: Batch) -> Tensor:
        """The state of the last token of the instruction, which is [SEG]."""
        places = torch.arange(states.shape[1], device=states.device)
        last = torch.where(batch.instruction_mask, places, -1).amax(1)
        return states[torch.arange(len(states), device=states.device), last]

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Losses:
        """The training losses of a micro-batch; see :meth:`UniGeoSeg.forward`."""
        if batch.masks is None:
            raise ValueError("a batch without masks has no loss; use predict")
        (masks, scores), states = self._run(batch)
        weights, class_weight = self.config.loss, self.config.baseline.class_weight
        with torch.no_grad():
            cost = matching_cost(masks, scores, batch.masks, weights.bce, weights.dice, class_weight)
            matched = cost.argmin(-1)  # [P, B]
        levels, rows = (torch.arange(n, device=matched.device) for n in matched.shape)
        chosen = masks[levels[:, None], rows, matched]
        bce, dice = mask_losses(chosen, batch.masks, batch.keys, weights, generator)
        classes = nn.functional.cross_entropy(
            scores.float().flatten(0, 1), matched.flatten(), reduction="none"
        )
        return sum_losses(
            batch,
            {
                "mask_bce": (weights.bce, bce),
                "mask_dice": (weights.dice, dice),
                "query_class": (class_weight, classes.view(matched.shape).sum(0)),
                "language": (weights.language, self._language_loss(states, batch.located().labelled)),
            },
            watch_masks(masks[-1][rows, scores[-1].argmax(-1)], batch.masks, logit(self.config.threshold)),
        )

    @torch.inference_mode()
    def predict(self, batch: Batch, seen: Seen | None = None) -> Tensor:
        """Mask logits float32 ``[B, S, S]`` of the query with the highest score; foreground is > 0."""
        (masks, scores), _ = self._run(batch, seen)
        best = scores[-1].argmax(-1)
        last = masks[-1][torch.arange(len(best), device=best.device), best][:, None].float()
        size = self.config.image_size
        return nn.functional.interpolate(last, size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def matching_cost(
    masks: Tensor, scores: Tensor, truth: Tensor, bce: float, dice: float, classes: float
) -> Tensor:
    """Cost of giving an instruction's target to each query, float32 ``[P, B, Q]``.

    ``- classes * p + bce * BCE + dice * (1 - (2 sum(m t) + 1) / (sum(m) + sum(t) + 1))``, with p the softmax
    of the scores over the queries and the sums over all cells of the predicted maps.

    Args:
        masks: logits ``[P, B, Q, h, w]``.
        scores: logits ``[P, B, Q]``.
        truth: 0 or 1 ``[B, S, S]``; averaged over the cells.
        bce: weight.
        dice: weight.
        classes: weight.
    """
    target = cell_shares(truth, *masks.shape[-2:]).flatten(1)  # [B, N]
    costs = []
    for logits, score in zip(masks.float().flatten(3), scores.float(), strict=True):
        probability = logits.sigmoid()
        meets = torch.bmm(probability, target[..., None]).squeeze(-1)
        overlap = (2 * meets + 1) / (probability.sum(-1) + target.sum(-1)[:, None] + 1)
        entropy = nn.functional.softplus(logits).mean(-1)
        entropy = entropy - torch.bmm(logits, target[..., None]).squeeze(-1) / logits.shape[-1]
        costs.append(bce * entropy + dice * (1 - overlap) - classes * score.softmax(-1))
    return torch.stack(costs)
