"""Faults and harmless changes that the self-test seeds into running engines."""
