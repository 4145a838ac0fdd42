"""An offline install of the harness and a pin's CUDA build, for GPU hosts without a network."""
