"""vLLM's stand-in for Triton where there is none."""
