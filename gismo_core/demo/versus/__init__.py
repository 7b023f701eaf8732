"""``make demo``, ``gismo demo``: Ray with Gismo beside stock Ray, the same work in clusters of the same shape.

plan says how large, acts what is done, show runs all of it (stock first, then with Gismo, then the death of a node),
plot draws it. What runs in the clusters is the benchmark's own: gismo_core.bench.clusters.
"""
