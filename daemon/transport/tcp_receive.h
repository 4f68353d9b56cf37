/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The receiving half of a data channel: what comes is taken apart and handed over.  Where bytes are
 * received to depends on what is expected next:
 *
 *   the buffer     frames' heads and pages alike, as many as have come
 *   in place       a head was read that announces a run of pages: the run goes to its place, and the
 *                  next head to the buffer
 *   ahead          a single page is all that is expected: head and page are received with one call,
 *                  each to its place, before either has come
 *
 * Used by the channel alone, on its data thread.
 */
#ifndef POSTCOPYD_TRANSPORT_TCP_RECEIVE_H
#define POSTCOPYD_TRANSPORT_TCP_RECEIVE_H

#include "daemon/transport/channel.h"

/* Starts to receive, unless that is under way.  Only while the channel is up. */
void tcp_receive(Channel *channel);

/* The completion of what tcp_receive() started. */
void tcp_received(RingWatch *watch, int result);

#endif
