"""One service in several processes: fronts that keep connections and hot answers, one core that keeps everything else.

Fronts own no database, no resolver and no handler. What memory cannot answer goes to the core over an inherited socket
(`line`, in `frames`), where it meets the same protocols as in a service of one process. What the core changes reaches
every front before the changing call returns (`news`). A supervisor starts, watches and ends them all.
"""
