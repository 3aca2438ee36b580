"""How is a live process shown? A snapshot of `inspect` in, text out; nothing heavier than the standard library.

    page      one process: summary or rows, what is wrong, reading it, by hand
    rows      descriptors one by one, both ends of each connection
    overview  all processes by their limit, and all listeners
    watching  what changed, a line for each event

Must not compute: groups, suspects and lessons come from `inspect`.
"""
