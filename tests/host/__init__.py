"""Proofs that a host is what it was made to be: they only look, and run against any host."""
