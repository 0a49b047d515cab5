"""The benchmark: jetsight beside torch, interleaved in one run, next to the machine's own limits."""
