"""Baselines in the form of published models, on the same parts, data, losses, trainer and evaluation.

* :mod:`unigeoseg.baselines.psalm`, after PSALM (Zhang et al. 2024, arXiv 2403.14598): a set of learned mask
  queries, of which the [SEG] embedding picks one.
* :mod:`unigeoseg.baselines.segearth`, after SegEarth-R1 (Li et al. 2025, arXiv 2504.09644): the description's
  embedding is the only query.

Neither has text enhancement (TATE) or knowledge memory (LKM). They are not those models: vision encoder,
language model, prompt and pixel decoder are this project's, so that a comparison shows what the text parts
and the query are worth.
"""
