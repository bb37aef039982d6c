"""The composition root: the command line, the configuration in force, the wiring of adapters, store, sessions and listeners, and their end.

Decisions about mail live further down; here things are made, connected, replaced on reload and stopped in order.
"""
