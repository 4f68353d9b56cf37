# SPDX-License-Identifier: GPL-2.0-or-later
"""Two real libvirtd on this machine, and migrations between them by virsh.

    namespace  a machine of its own as far as its programs can see
    hosts      libvirtd, virsh, hooks and our daemon in one; a pair of them with a wire between
    installed  our files on a host
    daemon     our daemon on a host
    domains    the test guest as a libvirt domain, and its migration
    plain      scenarios without us
    assisted   hosts with our daemons, and what these did
    assist     scenarios of assist mode
    onward     scenarios of guests that arrived with our help and go on to a host without us
    directed   the same hosts, and postcopyctl that drives
    direct     scenarios of direct mode

Nothing of it touches the libvirt of this machine: /run, /etc/libvirt, /var/lib/libvirt,
/var/cache/libvirt and /var/log/libvirt are private to each host.
"""
