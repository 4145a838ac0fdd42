"""pp-harness: apply a patch series to a pinned vLLM and prove that pipeline parallelism changes nothing."""

__version__ = "0.1.0"
