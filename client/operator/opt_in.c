/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/operator/opt_in.h"

#include <string.h>

#include "client/operator/xml.h"

static gboolean is_token(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdefABCDEF") == 64;
}

static OptIn read_element(const xmlNode *element)
{
    OptIn result = {.wish = OPT_IN_SILENT};
    g_autofree char *enabled = xml_attribute(element, "enabled");
    g_autofree char *token = xml_attribute(element, "token");

    if (strcmp(enabled, "yes") == 0)
        result.wish = OPT_IN_YES;
    else if (strcmp(enabled, "no") == 0)
        result.wish = OPT_IN_NO;
    if (is_token(token))
        memcpy(result.token, token, sizeof result.token);
    return result;
}

OptIn opt_in_of_domain(const xmlNode *domain)
{
    return read_element(
        xml_child(xml_child(domain, "metadata", NULL), OPT_IN_ELEMENT, OPT_IN_NAMESPACE));
}

/* libvirt gives an element out without its namespace. */
OptIn opt_in_of_element(const char *text)
{
    g_autoptr(xmlDoc) document = text ? xml_parse(text, strlen(text), NULL) : NULL;

    return read_element(document ? xmlDocGetRootElement(document) : NULL);
}

gboolean opt_in_is_on(const OptIn *opt_in, gboolean enable_all)
{
    return opt_in->wish == OPT_IN_YES || (opt_in->wish == OPT_IN_SILENT && enable_all);
}

char *opt_in_rewrite(const char *before, gboolean enabled)
{
    g_autoptr(xmlDoc) document = before ? xml_parse(before, strlen(before), NULL) : NULL;
    xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;

    if (!root || strcmp((const char *)root->name, OPT_IN_ELEMENT) != 0) {
        g_clear_pointer(&document, xmlFreeDoc);
        document = xmlNewDoc(NULL);
        root = xmlNewDocNode(document, NULL, (const xmlChar *)OPT_IN_ELEMENT, NULL);
        xmlDocSetRootElement(document, root);
    }
    xml_set(root, "enabled", enabled ? "yes" : "no");
    return g_strchomp(xml_print(document));
}
