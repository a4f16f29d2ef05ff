"""What `offload bench` measures: kernels, the service over its socket, and what follows for a user's choice."""
