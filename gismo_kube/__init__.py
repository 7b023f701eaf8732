"""What the operator and the node agent have in common: the way to the API server, and kopf as an informer."""
