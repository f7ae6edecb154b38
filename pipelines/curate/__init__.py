"""What is done with stores that stand: checking, merging, exporting, statistics, reports."""
