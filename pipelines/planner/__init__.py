"""What a run will need and cost before it starts, and how large clusters would fare."""
