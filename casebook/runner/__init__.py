"""Plays the casebook: starts each broken program, looks at it with the real leakline, compares what it says with what
expected.toml of its folder says, and then demands that nothing at all is found in the program put right.

expectation.py reads the expectation, programs.py builds and starts programs, looking.py runs leakline, judging.py
compares (pure), table.py prints. `python -m casebook` is its command line, `make casebook` all of it.
"""
