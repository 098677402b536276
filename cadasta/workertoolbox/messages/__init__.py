"""A task message as a value, and what of it may be stored."""
