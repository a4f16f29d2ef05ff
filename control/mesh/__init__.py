"""One mesh: what its resources want, what proxies and nodes have acknowledged, and what each may be given next."""
