"""What a bar is, where bars are kept, and where they come from."""
