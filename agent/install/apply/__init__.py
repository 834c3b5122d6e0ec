"""Carrying out a plan, and whatever comes of an Install that did not get to its end.

An Install has an end in two ways: until it is committed, it can be undone; afterwards, it can be completed. For both,
its journal is enough. Four words say who puts back what:

recover:  a group, in which an Install was interrupted: that is undone or completed (recovery.py);
undo:     an Install that is not committed: afterwards everything is as it was before it (ending.py, undo.py);
complete: an Install that is committed: what is left of the previous revision goes (ending.py, completion.py);
restore:  one entry of the journal: a name, a file or a directory is as it was (undo.py).
"""
