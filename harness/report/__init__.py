"""Stage four: what people and machines read."""
