"""The demo: incident A with real processes, our client beside the naive one, leakline as the judge of both.

`play.py` is the story. Its cast: `greeter.py`, `client.py`, and `naive_client.py`, a link to the casebook's program.
`watch.py` looks at them, `scene.py` is one look, `display.py` shows it; `outcome.py` judges, `conclusion.py` tells.
"""
