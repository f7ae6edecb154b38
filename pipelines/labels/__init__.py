"""What labels say: the taxonomy, regions and outlines, windows over them, and what matched nothing."""
