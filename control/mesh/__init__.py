"""What a mesh wants, what its proxies and nodes have acknowledged, and what each of them may be given next."""
