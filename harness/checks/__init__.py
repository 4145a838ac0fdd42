"""Stage three: pure functions from captures to verdicts and findings."""
