"""What runs on a host to check in at a registry: the standard library of Python 3.9, and nothing else.

    agent           reports what this host is and has, and learns who its peers are; no user's privileges
    apply           the root helper: writes what follows from that, after it has looked at all of it again
    join, leave     a host's first word to a registry, and its last

main.py has these verbs; pack.py makes of all of it what role checkin installs.
"""
