"""The builder of the bundled instruments: `python -m tools.instruments NAME`."""
