/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/operator/xml.h"

#include <string.h>

#include <libxml/parser.h>

#include "protocol/qmp/error.h"

static xmlDoc *fail(const char *why, GError **error)
{
    g_autofree char *line = g_strdelimit(g_strstrip(g_strdup(why)), "\r\n", ' ');

    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the XML cannot be used: %s", line);
    return NULL;
}

xmlDoc *xml_parse(const char *text, gsize length, GError **error)
{
    g_autoptr(xmlDoc) document = NULL;
    const xmlError *last;

    if (length == 0)
        return fail("it is empty", error);
    if (length > XML_TEXT_MAX)
        return fail("it is too long", error);
    /* Entities count while they are parsed, so a text that could declare some is not even begun. */
    if (g_strstr_len(text, (gssize)length, "<!DOCTYPE") ||
        g_strstr_len(text, (gssize)length, "<!ENTITY"))
        return fail("it has a document type", error);
    xmlResetLastError();
    /* The encoding is given, so that no other one hides what was looked for above. */
    document = xmlReadMemory(text, (int)length, NULL, "UTF-8",
                             XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!document) {
        last = xmlGetLastError();
        return fail(last && last->message ? last->message : "it is malformed", error);
    }
    if (document->intSubset || document->extSubset)
        return fail("it has a document type", error);
    if (!xmlDocGetRootElement(document))
        return fail("it has no element", error);
    return g_steal_pointer(&document);
}

gboolean xml_is(const xmlNode *node, const char *name, const char *ns)
{
    const char *href = node && node->ns ? (const char *)node->ns->href : NULL;

    return node && node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0 &&
           g_strcmp0(href, ns) == 0;
}

static xmlNode *first_of(xmlNode *node, const char *name, const char *ns)
{
    while (node && !xml_is(node, name, ns))
        node = node->next;
    return node;
}

xmlNode *xml_child(const xmlNode *parent, const char *name, const char *ns)
{
    return parent ? first_of(parent->children, name, ns) : NULL;
}

xmlNode *xml_next(const xmlNode *node, const char *name, const char *ns)
{
    return first_of(node->next, name, ns);
}

/* libxml2's memory as GLib's. */
static char *take(xmlChar *text)
{
    char *copy = g_strdup(text ? (const char *)text : "");

    xmlFree(text);
    return copy;
}

char *xml_attribute(const xmlNode *node, const char *name)
{
    return take(node ? xmlGetNoNsProp(node, (const xmlChar *)name) : NULL);
}

char *xml_text(const xmlNode *node)
{
    return g_strstrip(take(node ? xmlNodeGetContent(node) : NULL));
}

void xml_set(xmlNode *node, const char *name, const char *value)
{
    xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value);
}

void xml_remove(xmlNode *node)
{
    xmlNode *behind = node->next;

    if (behind && xmlIsBlankNode(behind)) {
        xmlUnlinkNode(behind);
        xmlFreeNode(behind);
    }
    xmlUnlinkNode(node);
    xmlFreeNode(node);
}

char *xml_print(xmlDoc *document)
{
    xmlBuffer *buffer = xmlBufferCreate();
    char *text;

    xmlNodeDump(buffer, document, xmlDocGetRootElement(document), 0, 0);
    text = g_strconcat((const char *)xmlBufferContent(buffer), "\n", NULL);
    xmlBufferFree(buffer);
    return text;
}
