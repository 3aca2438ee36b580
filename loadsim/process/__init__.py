"""How are processes started and ended? Children, namespaces, trees, and the channel to them.

    launch      children under limits and in a namespace
    control     JSON lines between the conductor and a child
    netns       a private network namespace
    holder      the process that keeps it
    enter       what a child does before it executes its command
    tree        a command and all its descendants
    supervisor  the process that adopts and ends them

`holder`, `enter` and `supervisor` run without site-packages.
"""
