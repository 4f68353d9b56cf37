/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/mark.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <string.h>

#include "daemon/core/digits.h"

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

gboolean mark_parse(const char *xml, Mark *ret_mark)
{
    size_t length = strnlen(xml, MARK_XML_MAX + 1);
    xmlDoc *document = NULL;
    xmlNode *root;
    gboolean known = FALSE;

    memset(ret_mark, 0, sizeof *ret_mark);
    if (length <= MARK_XML_MAX)
        document = xmlReadMemory(xml, (int)length, NULL, NULL,
                                 XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    root = document ? xmlDocGetRootElement(document) : NULL;
    if (root && strcmp((const char *)root->name, "migration") == 0)
        known = read_element(root, ret_mark);
    xmlFreeDoc(document);
    if (!known)
        *ret_mark = (Mark){.enabled = MARK_NO, .ignore_shared = ret_mark->ignore_shared};
    return known;
}

char *mark_write(const Mark *mark)
{
    GString *xml;

    if (mark->enabled == MARK_UNSET && !mark->has_token && !mark->ignore_shared)
        return NULL;
    /* libvirt puts the namespace and its prefix there itself. */
    xml = g_string_new("<migration");
    if (mark->enabled != MARK_UNSET)
        g_string_append_printf(xml, " enabled=\"%s\"", mark->enabled == MARK_YES ? "yes" : "no");
    if (mark->has_token) {
        g_string_append(xml, " token=\"");
        for (int i = 0; i < LIMIT_TOKEN; i++)
            g_string_append_printf(xml, "%02x", mark->token[i]);
        g_string_append(xml, "\"");
    }
    if (mark->ignore_shared)
        g_string_append(xml, " ignore-shared=\"yes\"");
    g_string_append(xml, "/>");
    return g_string_free(xml, FALSE);
}

gboolean mark_takes_part(const Mark *mark, gboolean all)
{
    return mark->enabled == MARK_YES || (mark->enabled == MARK_UNSET && all);
}
