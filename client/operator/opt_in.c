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

char *opt_in_element(const OptIn *opt_in)
{
    const char *enabled = opt_in->wish == OPT_IN_YES  ? " enabled='yes'"
                          : opt_in->wish == OPT_IN_NO ? " enabled='no'"
                                                      : "";

    if (*opt_in->token)
        return g_strdup_printf("<" OPT_IN_ELEMENT "%s token='%s'/>", enabled, opt_in->token);
    return g_strdup_printf("<" OPT_IN_ELEMENT "%s/>", enabled);
}
