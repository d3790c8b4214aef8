"""The commands of `python -m gatehouse`, one module each."""
