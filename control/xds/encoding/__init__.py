"""From plain dictionaries to the bytes for Envoy, and what Envoy would reject in them."""
