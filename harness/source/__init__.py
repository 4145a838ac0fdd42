"""What is under test: which vLLM (pin), which patches (series), and the tree that runs (tree)."""
