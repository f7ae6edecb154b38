"""Mathematics of the optimiser: orthogonal updates, rates by layer."""
