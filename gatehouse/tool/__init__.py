"""The `gatehouse` command on the host.

It runs in a virtual environment of its own, with click, rich and NVIDIA's bindings and nothing
else: nothing here imports settings, deploys or the lab.
"""
