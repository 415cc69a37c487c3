"""The tunnel beside its peers, on one machine and one line.

::

    client 10.1.0.2 ── the line ── 10.1.0.1 gateway 10.20.0.2 ──── 10.20.0.10 resource

Three network namespaces and two cables for each subject; in ours the gateway's place also has the portal and the
relay, which have nothing to do while we measure. All subjects forward and masquerade at the gateway, so that what
differs is the tunnel alone; `veth` is the same without one. All of them live through all rounds and take turns at each
measurement, so what disturbs the machine for a while disturbs all of them.

Traffic is made by small programs of our own (`flow`), the same for everybody.
"""
