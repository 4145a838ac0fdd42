"""GSM8K answers at PP=N compared with those at PP=1."""
