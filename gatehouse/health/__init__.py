"""The page, the metrics and the alerts: what root gathered, shown by those who have no rights.

Three programs with privileges apart. `collect` is root, reads Docker and files, and listens to
nobody. `serve` listens on loopback and may read one document. `alerts` may read it too, and speaks
to one address outside.
"""
