"""Alerts: rules over the store, what they find, and who is told.

rules.py reads rules, sql.py makes their text a query, states.py decides (pure), book.py keeps it on disk, outputs.py
tells others, watch.py runs all of it, trial.py tries rules on made data, routes.py answers over HTTP.
"""
