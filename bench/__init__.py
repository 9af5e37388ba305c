"""Side by side with peers: typed async calls over loopback, every system in one interleaved run (`make bench`).

`__main__` reads the command line, `rounds` runs the rounds, `cell` is one measurement in one client process, `table`
turns samples into text, `systems/` holds one adaptor a system. The method is described in docs/benchmark.md.
"""
