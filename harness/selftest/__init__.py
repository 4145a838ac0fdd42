"""The self-test: seeded faults and harmless changes, and which check catches what."""
