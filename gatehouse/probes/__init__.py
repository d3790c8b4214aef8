"""Programs that a check runs on the host, with nothing but the host's own Python.

Each prints one JSON document. They reach the host as text (gatehouse/checks/probe.py), so that
they also run where nothing of Gatehouse is installed: they import the standard library and each
other, nothing else, and work from Python 3.10 on.
"""
