"""The benchmark: jetsight beside torch, interleaved, beside the machine's limits."""
