"""The node agent of Gismo and its kubelet device plugin."""
