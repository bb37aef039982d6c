"""Passwords and SCRAM for all protocols, with throttling. One per pod."""
