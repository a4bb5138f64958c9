"""Training: configuration → data → fit → calibrate → evaluate → checkpoint."""
