"""What was answered, what came of it, and whether the markets still look as in training."""
