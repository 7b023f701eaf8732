"""What is done in the clusters: the same code in both, as a user of Ray writes it. Imports Ray.

Each function takes the cluster (see cluster.Here) and returns what goes into JSON. What is timed is timed here, in
the driver, with time.perf_counter; contents are checked outside of that.
"""
