/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A libvirt domain's word about us, in its metadata:
 *   <postcopyd:migration xmlns:postcopyd="urn:postcopyd:domain:1" enabled="yes" token="64 hex digits"/>
 * Whether it takes part is its owner's; the token is the source daemon's, by which it knows the
 * destination that asks for the domain's memory.
 */
#ifndef POSTCOPYD_OPERATOR_OPT_IN_H
#define POSTCOPYD_OPERATOR_OPT_IN_H

#include <glib.h>
#include <libxml/tree.h>

#define OPT_IN_NAMESPACE "urn:postcopyd:domain:1"
#define OPT_IN_KEY       "postcopyd"
#define OPT_IN_ELEMENT   "migration"

typedef enum OptInWish {
    OPT_IN_SILENT, /* says nothing, or nothing that is understood */
    OPT_IN_YES,
    OPT_IN_NO,
} OptInWish;

typedef struct OptIn {
    OptInWish wish;
    char token[65]; /* "" if there is none */
} OptIn;

/* What a domain's XML says. */
OptIn opt_in_of_domain(const xmlNode *domain);

/* What the element says that libvirt's API gave out (NULL: there is none). */
OptIn opt_in_of_element(const char *text);

/* Whether it takes part on a host with this setting. */
gboolean opt_in_is_on(const OptIn *opt_in, gboolean enable_all);

/*
 * The element that libvirt's API gave out (NULL: there is none) with another word, as the API takes it; the
 * caller's.  All else in it is the daemon's, and stays.
 */
char *opt_in_rewrite(const char *before, gboolean enabled);

#endif
