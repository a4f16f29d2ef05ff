"""Envoy configuration of one proxy, as plain dictionaries: pure functions of a view of the mesh."""
