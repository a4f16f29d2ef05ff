"""What the kernels offer, as numbers and names, for commands that have to work without the native libraries."""

LANES = 8  # operations in a batch, at most: KERNEL_LANES of kernels/kernels.h, and a test compares them
BACKENDS = ("software", "ifma8")
