"""The HTTP server: keeps bars up to date and makes each prediction once for many requests."""
