"""``gismo demo store``: writers and readers of several hosts on one store, one killed, one frozen.

plan says how large and how long, show runs the acts one after the other (traffic, onecopy, deaths, ending, cycle),
fleet holds the hosts and their processes, worker is one such process, report judges, screen shows. Every figure
that is shown was measured in the run; what had to hold and did not makes the exit code 1.

``gismo demo`` itself, Ray with Gismo beside stock Ray, is versus.
"""
