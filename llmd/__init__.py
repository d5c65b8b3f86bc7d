"""llmd keeps local language models on stable ports.

One daemon holds the TCP ports that clients are configured with. Behind each port at most one
model is resident: loaded when asked for, unloaded when idle, evicted so that all of them together
stay inside one memory budget. `llmd.core` decides, `llmd.proxy` carries the bytes,
`llmd.hosts` is the program that runs one model, `llmd.runtime` joins them, and `llmd.admin` and
`llmd.cli` are for people.
"""

__version__ = "0.1.0"
