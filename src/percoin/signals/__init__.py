"""Who answers for a market: the model, or what stands behind it."""
