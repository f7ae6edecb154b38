"""Data sets of ready image-mask-instruction triplets in the layouts of their releases."""
