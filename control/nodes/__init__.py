"""Nodes: their daemons get the identities of the dataplanes placed on them, and certificates for keys they made."""
