"""Benchmarks, and the native load tools that they and the demo use."""
