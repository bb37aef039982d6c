"""Every size, count and timeout, one module per area, each with its unit in the name and its why beside it.

Nothing here is read from the environment: what an administrator may set is in `mailpod.contract`, bounded by these.
"""
