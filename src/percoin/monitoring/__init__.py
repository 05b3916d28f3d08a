"""The track record of served predictions, their scores, and the feature drift of models."""
