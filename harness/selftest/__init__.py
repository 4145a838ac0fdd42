"""The self-test: it runs engines under seeded faults and shows which check catches what."""
