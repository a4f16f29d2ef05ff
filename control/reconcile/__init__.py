"""Keeps every connected proxy at what the store says: changes come in, plans are made, snapshots go out."""
