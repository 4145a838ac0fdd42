"""A stand-in for vLLM: the names that the hooks rely on (surface.py), behaving just enough.

One rank is one import of it; a rank's neighbours are other imports (tests/engine/fake_ranks.py).
"""

__version__ = "0.0.0"
