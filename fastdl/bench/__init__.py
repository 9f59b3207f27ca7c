"""The bench behind ``fastdl bench``: layers of known networks, timed against the machine's limits.

`layers` is the list, `ours` and `peers` compute a layer, `timing` times them
side by side, `limits` measures what the machine could do, `run` brings them
together, `table`, `report` and `roofline` show the result.
"""
