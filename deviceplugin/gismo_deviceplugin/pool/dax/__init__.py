"""A pool's memory as a CXL region of each node, carved into DAX devices. docs/kubernetes.md, "Carving a DAX region"."""
