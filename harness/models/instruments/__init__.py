"""The bundled instruments: tiny trained checkpoints and the word problems that they solve."""

from harness.models.instruments.catalog import instrument_names, instrument_path, problems_path

__all__ = ["instrument_names", "instrument_path", "problems_path"]
