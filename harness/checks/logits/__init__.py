"""Logits at PP=N compared with those at PP=1."""
