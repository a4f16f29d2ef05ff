"""Running the product: set-up, unit files, and the demo."""
