"""Two Ray clusters of the same shape, one with Gismo and one without, driven by turns: for ``gismo bench ray`` and the demo.

shape says what a cluster is like, side starts one in a process of its own and asks it for work, pair runs both,
processes tells what they cost. driver is such a process; it and ``work``, what is done in it, are the only parts
that import Ray.
"""
