"""What every listener needs, whatever it speaks: opening, counting, refusing, time limits, peers' trust, TLS, draining.

Knows no protocol and no other listener, so that it can run in any process that is handed a socket.
"""
