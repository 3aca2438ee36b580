"""Starts and ends processes: children, namespaces, process trees, and the control channel.

    launch      children with limits and in a namespace
    control     JSON lines between the conductor and a child
    netns       a private network namespace
    holder      the process that keeps the namespace open
    enter       the setup of a child before it executes its command
    tree        a command and all its descendants
    supervisor  the process that adopts and ends these descendants

`holder`, `enter` and `supervisor` run without site-packages.
"""
