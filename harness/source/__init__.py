"""The subject under test: a vLLM release (pin), patches (series), and the tree that runs (tree)."""
