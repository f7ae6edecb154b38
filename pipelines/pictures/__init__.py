"""One way to read pictures and masks, for builds, benchmarks and prediction."""
