"""The demo: incident A with real processes, our client beside the naive one, leakline as the judge of both.

`play.py` is the story; the other files are its cast (greeter, client, children), its eyes (watch), and how it is told
(table, outcome).
"""
