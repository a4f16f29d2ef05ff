"""What the kernels offer, as numbers and names, for commands that must work without the native libraries."""

LANES = 8  # maximum number of operations in a batch: KERNEL_LANES of kernels/kernels.h, and a test compares them
BACKENDS = ("software", "ifma8")
