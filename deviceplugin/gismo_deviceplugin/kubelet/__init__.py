"""What the kubelet speaks: its gRPC APIs, and a device plugin for each resource."""
