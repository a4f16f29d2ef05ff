"""The control plane's ports and the process around them: who may be connected, gRPC for proxies and nodes, REST."""
