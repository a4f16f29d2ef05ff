"""The REST API: resources, what each proxy gets and has, tokens, rotation of CAs."""
