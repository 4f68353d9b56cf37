/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection to another daemon that carries control frames, one at a time, for threads that may
 * block: handshakes, the control channel, invitations.  Pages never pass here.
 *
 * One thread receives; sending is for one thread at a time (the owner's to arrange).
 */
#ifndef POSTCOPYD_TRANSPORT_PEER_SOCKET_H
#define POSTCOPYD_TRANSPORT_PEER_SOCKET_H

#include "protocol/peer.h"

enum { PEER_HANDSHAKE_MS = 10000 };

typedef struct PeerSocket {
    int fd;            /* owned; non-blocking */
    int cancel_fd;     /* the owner's; once it is readable every wait ends with -ECANCELED; -1 */
    int timeout_ms;    /* how long a send may take; 0: it never waits */
    uint64_t features; /* PEER_FEATURE_*: what both sides have; known once they have greeted */
    uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX];
} PeerSocket;

/* Takes fd. */
PeerSocket *peer_socket_new(int fd);

/* NULL is allowed. */
void peer_socket_free(PeerSocket *peer);

/* Takes the fd out of a peer socket and frees the rest: nothing unread is lost, frames are read to
 * their exact end. */
int peer_socket_steal(PeerSocket *peer);

/* Sends one frame. 0 or negative errno, -ETIMEDOUT after timeout_ms. */
int peer_socket_send(PeerSocket *peer, const PeerMessage *message);

/* Receives one frame.  0; -ETIMEDOUT; -ECONNRESET at the end; -EPROTO. */
int peer_socket_receive(PeerSocket *peer, PeerMessage *ret_message, int timeout_ms);

/*
 * START, STARTED and HELLO both ways.  0 or negative errno with a line in
 * ret_text[LIMIT_TEXT + 1]: who they are, what does not fit.
 */
int peer_socket_greet(PeerSocket *peer, PeerMessage *scratch, char *ret_text);
int peer_socket_welcome(PeerSocket *peer, PeerMessage *scratch, char *ret_text);

/* Connects to HOST:PORT (with a cancel_fd: numeric) and greets. NULL with *ret_error and a line in ret_text. */
PeerSocket *peer_socket_connect(const char *address, int dead_ms, int cancel_fd,
                                PeerMessage *scratch, int *ret_error, char *ret_text);

/* The same from a reserved port (address_connect_reserved()). */
PeerSocket *peer_socket_connect_reserved(const char *address, int dead_ms, int cancel_fd,
                                         PeerMessage *scratch, int *ret_error, char *ret_text);

/* Tells the other side why, best effort. */
void peer_socket_refuse(PeerSocket *peer, PeerMessage *scratch, PeerErrorCode code,
                        const char *text);

#endif
