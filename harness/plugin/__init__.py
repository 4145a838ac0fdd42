"""The parts of the pytest plugin: options, the run, what it prints."""
