/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading XML that came from another host: nothing it names is opened or fetched, nothing it declares is
 * expanded.  Domain XML has no need of a document type, so a text with one is refused.  Any thread.
 */
#ifndef POSTCOPYD_OPERATOR_XML_H
#define POSTCOPYD_OPERATOR_XML_H

#include <glib.h>
#include <libxml/tree.h>

/* Larger than any domain's XML is; what is longer is refused. */
#define XML_TEXT_MAX ((gsize)16 << 20)

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)

/* The caller's, with a root element; NULL with one line in error. */
xmlDoc *xml_parse(const char *text, gsize length, GError **error);

/* Whether it is an element of that name; ns is a namespace's URI, NULL: of none. */
gboolean xml_is(const xmlNode *node, const char *name, const char *ns);

/* The first such child, and the next such sibling behind a node; NULL if there is none. */
xmlNode *xml_child(const xmlNode *parent, const char *name, const char *ns);
xmlNode *xml_next(const xmlNode *node, const char *name, const char *ns);

/* The attribute's value, or the element's text without white space around it; "" if there is none, also
 * for a node that is NULL.  The caller's. */
char *xml_attribute(const xmlNode *node, const char *name);
char *xml_text(const xmlNode *node);

/* An attribute of no namespace, whose value is plain text. */
void xml_set(xmlNode *node, const char *name, const char *value);

/* Takes the node out and frees it; white space behind it goes, too. */
void xml_remove(xmlNode *node);

/* The caller's; without an XML declaration, as libvirt writes it. */
char *xml_print(xmlDoc *document);

#endif
