"""Programs for developers and operators of the harness; not part of the wheel."""
