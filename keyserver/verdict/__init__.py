"""Can mail to an address be encrypted now? One decision for every mail server, program and page that asks."""
