"""Listeners: sockets, TLS and PROXY protocol in front of the sessions. The only place where connections exist.

Charter: a connection adapts one transport to one session; what a command means is never decided here.
"""
