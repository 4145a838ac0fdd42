"""pp-harness: does pipeline parallelism change what a model computes? Patch a vLLM and see."""

__version__ = "0.1.0"
