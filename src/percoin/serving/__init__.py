"""Answers for many markets over HTTP: bars kept up to date, answers made once, sent often."""
