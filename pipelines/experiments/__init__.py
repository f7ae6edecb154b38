"""Many training runs that belong together: the paper's ablation tables, sweeps, comparisons."""
