"""Actors in supervised worker processes: a general runtime that knows nothing of tunnels."""
