"""The command `pp-harness`, one module a command group."""
