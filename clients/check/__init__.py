"""What `exeunt check` examines: the network and the rights that a tunnel needs, measured first and judged then.

    situation ─► measurement ─► Measured ─► judgement ─► findings, each with a verdict, a sentence and a hint

`measurement` does I/O, all of it at once and within a deadline. It concludes nothing. `judgement` is pure: small
functions that each look at what was measured and say what that means for a tunnel. The protocols in between (STUN
questions, NAT behaviour discovery, path MTU) are machines without sockets and clocks.
"""
