"""Hooks on vLLM: they record what its ranks compute, send and read, and change nothing."""
