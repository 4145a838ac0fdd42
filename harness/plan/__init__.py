"""From options to points to cells: data, and no engine."""
