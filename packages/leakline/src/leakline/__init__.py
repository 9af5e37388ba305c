"""leakline: says whether a process leaks file descriptors, of which kind, how fast, until when, why, and what to
change.
"""

__version__ = "0.1.0"
