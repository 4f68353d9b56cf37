/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/mark.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <string.h>

#include "daemon/core/digits.h"

#define ELEMENT "migration"

/* Ours is shorter by far; libvirt lets people write anything. */
enum { MARK_XML_MAX = 16 << 10 };

/* The attribute, the caller's (xmlFree); NULL if it is not there. */
static char *attribute(xmlNode *node, const char *name)
{
    return (char *)xmlGetNoNsProp(node, (const xmlChar *)name);
}

static gboolean read_element(xmlNode *node, Mark *mark)
{
    char *enabled = attribute(node, "enabled");
    char *token = attribute(node, "token");
    char *ignore_shared = attribute(node, "ignore-shared");
    gboolean known = TRUE;

    if (enabled && strcmp(enabled, "yes") == 0)
        mark->enabled = MARK_YES;
    else if (enabled && strcmp(enabled, "no") == 0)
        mark->enabled = MARK_NO;
    else
        known = enabled == NULL;
    mark->has_token = token && digits_to_bytes(token, mark->token, LIMIT_TOKEN);
    mark->ignore_shared = ignore_shared && strcmp(ignore_shared, "yes") == 0;
    xmlFree(enabled);
    xmlFree(token);
    xmlFree(ignore_shared);
    return known;
}

/* NULL: it is none of ours. */
static xmlDoc *parse_element(const char *xml)
{
    size_t length = strnlen(xml, MARK_XML_MAX + 1);
    xmlDoc *document = NULL;
    xmlNode *root;

    if (length <= MARK_XML_MAX)
        document = xmlReadMemory(xml, (int)length, NULL, NULL,
                                 XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    root = document ? xmlDocGetRootElement(document) : NULL;
    if (root && strcmp((const char *)root->name, ELEMENT) == 0)
        return document;
    xmlFreeDoc(document);
    return NULL;
}

gboolean mark_parse(const char *xml, Mark *ret_mark)
{
    xmlDoc *document = parse_element(xml);
    gboolean known = FALSE;

    memset(ret_mark, 0, sizeof *ret_mark);
    if (document)
        known = read_element(xmlDocGetRootElement(document), ret_mark);
    xmlFreeDoc(document);
    if (!known)
        *ret_mark = (Mark){.enabled = MARK_NO, .ignore_shared = ret_mark->ignore_shared};
    return known;
}

/* Value NULL: it is taken out. */
static void set_attribute(xmlNode *node, const char *name, const char *value)
{
    if (value)
        xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value);
    else
        xmlUnsetProp(node, (const xmlChar *)name);
}

static void write_element(xmlNode *node, const Mark *mark)
{
    char token[2 * LIMIT_TOKEN + 1] = "";

    for (gsize i = 0; i < LIMIT_TOKEN; i++)
        g_snprintf(token + 2 * i, 3, "%02x", mark->token[i]);
    set_attribute(node, "enabled",
                  mark->enabled == MARK_YES  ? "yes"
                  : mark->enabled == MARK_NO ? "no"
                                             : NULL);
    set_attribute(node, "token", mark->has_token ? token : NULL);
    set_attribute(node, "ignore-shared", mark->ignore_shared ? "yes" : NULL);
}

/* libvirt puts the namespace and its prefix there itself. */
char *mark_write(const Mark *mark, const char *before)
{
    xmlDoc *document = before ? parse_element(before) : NULL;
    xmlBuffer *buffer = xmlBufferCreate();
    char *text = NULL;
    xmlNode *root;

    if (!document) {
        document = xmlNewDoc(NULL);
        xmlDocSetRootElement(document, xmlNewDocNode(document, NULL, (xmlChar *)ELEMENT, NULL));
    }
    root = xmlDocGetRootElement(document);
    write_element(root, mark);
    if (root->properties || root->children) {
        xmlNodeDump(buffer, document, root, 0, 0);
        text = g_strdup((const char *)xmlBufferContent(buffer));
    }
    xmlBufferFree(buffer);
    xmlFreeDoc(document);
    return text;
}

gboolean mark_takes_part(const Mark *mark, gboolean all)
{
    return mark->enabled == MARK_YES || (mark->enabled == MARK_UNSET && all);
}
