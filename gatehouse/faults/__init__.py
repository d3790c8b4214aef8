"""Faults on purpose: what a client sees while parts fail, what is lost, and how soon it is over."""
