"""The memory of a pool on one node: its label, the ranges of Gismo namespaces, and the proof that all nodes see the same."""
