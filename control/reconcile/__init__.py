"""Keeps every connected proxy in sync with the store: changes come in, plans are made, snapshots go out."""
