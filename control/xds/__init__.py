"""xDS: what each proxy gets (view, inbounds, outbounds, proxy, snapshot), and the protocol that brings it there.

Everything but server.py is without I/O: configuration is a pure function of the mesh's resources, and the protocol is a
state machine that takes requests and snapshots and returns responses.
"""
