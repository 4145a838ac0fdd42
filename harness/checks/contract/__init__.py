"""The tensor-key contract between neighbouring stages."""
