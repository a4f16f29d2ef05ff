"""xds: what each proxy gets, and the protocol that brings it there. Without I/O; the server is `servers/ads.py`.

`render` makes Envoy configuration of a view of the mesh, `encoding` makes bytes of it, `builder.py` puts the snapshot
of a proxy together, and `protocol` is a state machine that takes requests and snapshots and returns responses.
"""
