"""Our kernels against Intel's, OpenSSL's and BoringSSL's: `python -m benchmarks.kernels --json FILE`."""
