"""HTTP inside the cluster: health, readiness, metrics, and the wake-ups and questions between pods of one fleet.

Never on a public Service. What changes or reveals anything is authenticated with the fleet's key.
"""
