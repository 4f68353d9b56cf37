/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a running daemon was told; constant from start-up until the process ends. configs/postcopyd.conf explains each. */
#ifndef POSTCOPYD_CONTROL_SETTINGS_H
#define POSTCOPYD_CONTROL_SETTINGS_H

#include <glib.h>
#include <limits.h>

#include "daemon/fault/import.h"
#include "daemon/transport/networks.h"

/* Of a number that the daemon finds when it starts: nobody has said it. */
enum { SETTINGS_MEASURED = INT_MAX };

/* Which libvirt domains are ours to help. */
typedef enum LibvirtEnable {
    LIBVIRT_ENABLE_OPTED, /* those whose metadata says so */
    LIBVIRT_ENABLE_ALL,   /* all but those whose metadata says no */
    LIBVIRT_ENABLES
} LibvirtEnable;

/* A list of networks as it was written, and as it is asked. */
typedef struct NetworkList {
    char *text;       /* NULL: empty */
    Networks *parsed; /* NULL: empty */
} NetworkList;

typedef struct Settings {
    char *socket;         /* [daemon] socket */
    char *group;          /* [daemon] group: owns the socket; NULL: the daemon's own */
    char *operator_group; /* [daemon] operator_group; NULL: root and the daemon's user only */
    char *runtime_dir;    /* [daemon] runtime_dir */
    unsigned max_clients; /* [daemon] */
    unsigned max_clients_per_user; /* [daemon] */
    char *listen;                  /* [peer] listen, HOST:PORT */
    char *advertise;               /* [peer] advertise, HOST:PORT or NULL */
    gboolean insecure_plaintext;   /* [peer] */
    unsigned transport;            /* [peer] transport, an ImportTransport */
    NetworkList rdma_networks;     /* [rdma] networks: where RDMA may be used at all */
    NetworkList rdma_peers;        /* [rdma] peers: an ImportTransport for each */
    guint64 rdma_pinned;           /* [rdma] pinned, bytes */
    ImportConfig import;           /* [import] */
    guint64 limit;                 /* [import] limit: bytes/s of all VMs together; 0: none */
    guint64 vm_limit;              /* [import] vm_limit: of each; 0: none */
    gboolean grant_device;         /* [daemon] /dev/userfaultfd is opened for clients */
    char *libvirt_uri;             /* [libvirt] uri; NULL: no libvirt */
    unsigned start_postcopy;       /* [libvirt] after so many passes; 0: never */
    unsigned libvirt_enable;       /* [libvirt] enable, a LibvirtEnable */
    unsigned source_port;          /* [libvirt] of the daemon on the host a migration comes from */
    char *source;                  /* [libvirt] source, HOST:PORT or NULL: that host */
} Settings;

#endif
