"""The parts of the pytest plugin: options, the run, what it prints."""

# Tests that ask for it are run once for each point.
POINT_FIXTURE = "pp_point"
