"""From plain dictionaries to the bytes that go to Envoy, and what Envoy would refuse of them."""
