"""The project itself: its layers, documents, dependencies and benchmarks."""
