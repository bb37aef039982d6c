"""Pure builders: from resources to what should be. No I/O, no clock; randomness and keys are passed in.

The same code serves the cluster and `mailoperator render` on a laptop.
"""
