"""Writing files and folders so that a reader sees the old one or the new one, never a part.

The order is temp -> write -> fsync(file) -> rename -> fsync(folder); a kill at any step leaves the
final name untouched and at most a hidden temp behind, which the next writer sweeps.
"""
