"""The control plane's ports and the process around them: admission of connections, gRPC for proxies and nodes, REST."""
