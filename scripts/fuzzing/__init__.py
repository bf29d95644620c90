"""The pieces of the fuzzer: hostile manifests, hostile data files, a worker with limits, and what must hold."""
