/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Valid messages of every type and shape, for the codecs' tests and as seeds of their fuzzers.
 */
#ifndef POSTCOPYD_TESTS_PROTOCOL_SAMPLES_H
#define POSTCOPYD_TESTS_PROTOCOL_SAMPLES_H

#include "protocol/client.h"
#include "protocol/peer.h"

/* The sample of that number with the number of its fds and a name, or NULL beyond the last. */
const char *client_sample(unsigned number, ClientMessage *ret_message, uint32_t *ret_n_fds);

/* Likewise. DATA is encoded without its pages: its fixed body alone. */
const char *peer_sample(unsigned number, PeerMessage *ret_message);

#endif
