"""How markets are made ready for a training, and how their weights come about."""
