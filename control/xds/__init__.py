"""xds: what each proxy gets, and the protocol that delivers it. Without I/O; the server is `servers/ads.py`.

`render` makes Envoy configuration from a view of the mesh, `encoding` serialises it, `builder.py` puts the snapshot of
a proxy together, and `protocol` is a state machine that takes requests and snapshots and returns responses.
"""
