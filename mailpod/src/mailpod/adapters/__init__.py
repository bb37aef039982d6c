"""The ports, for real: bucket, clock, randomness, threads. The only vendor imports of the pod are here, in `servers` and in `web`."""
