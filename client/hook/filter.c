/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/filter.h"

#include <string.h>

#include "client/operator/xml.h"
#include "paths.h"

#define QEMU    FILTER_QEMU_NAMESPACE
#define OUR_ID  "postcopyd"
#define SOCKET  "POSTCOPY_SOCKET"
#define PRELOAD "LD_PRELOAD"
#define BETWEEN " :" /* what the dynamic linker takes between two libraries */

static xmlNode *command_line(const xmlNode *domain)
{
    return xml_child(domain, "commandline", QEMU);
}

static gboolean value_is(const xmlNode *node, const char *name, const char *wanted)
{
    g_autofree char *value = xml_attribute(node, name);

    return strcmp(value, wanted) == 0;
}

/* An option's value with our id: "KIND,…,id=postcopyd,…". */
static gboolean has_our_id(const xmlNode *node)
{
    g_autofree char *value = xml_attribute(node, "value");
    g_auto(GStrv) words = g_strsplit(value, ",", -1);

    return g_strv_contains((const char *const *)words, "id=" OUR_ID);
}

/* The argument that is our option's value, if this one is the option's name. */
static xmlNode *our_value(const xmlNode *name)
{
    xmlNode *value;

    if (!value_is(name, "value", "-chardev") && !value_is(name, "value", "-mon"))
        return NULL;
    value = xml_next(name, "arg", QEMU);
    return value && has_our_id(value) ? value : NULL;
}

gboolean filter_has_monitor(const xmlNode *domain)
{
    for (xmlNode *line = command_line(domain); line; line = xml_next(line, "commandline", QEMU))
        for (xmlNode *arg = xml_child(line, "arg", QEMU); arg; arg = xml_next(arg, "arg", QEMU))
            if (value_is(arg, "value", "-mon") && our_value(arg))
                return TRUE;
    return FALSE;
}

/* --- taking out ---------------------------------------------------------------------------- */

static gboolean remove_arguments(xmlNode *line)
{
    gboolean found = FALSE;
    xmlNode *arg = xml_child(line, "arg", QEMU);

    while (arg) {
        xmlNode *value = our_value(arg);
        xmlNode *next = xml_next(value ? value : arg, "arg", QEMU);

        if (value) {
            xml_remove(value);
            xml_remove(arg);
            found = TRUE;
        }
        arg = next;
    }
    return found;
}

static gboolean is_ours(const char *library)
{
    g_autofree char *base = g_path_get_basename(library);

    return strcmp(base, POSTCOPYD_PRELOAD_NAME) == 0;
}

/* The list without our library, wherever that was installed; NULL if it was not in it. */
static char *without_ours(const char *list)
{
    g_auto(GStrv) libraries = g_strsplit_set(list, BETWEEN, -1);
    g_autoptr(GString) rest = g_string_new(NULL);
    gboolean found = FALSE;

    for (guint i = 0; libraries[i]; i++) {
        if (is_ours(libraries[i]))
            found = TRUE;
        else if (*libraries[i])
            g_string_append_printf(rest, "%s%s", rest->len ? ":" : "", libraries[i]);
    }
    return found ? g_strdup(rest->str) : NULL;
}

static gboolean remove_preload(xmlNode *env)
{
    g_autofree char *list = xml_attribute(env, "value");
    g_autofree char *rest = without_ours(list);

    if (!rest)
        return FALSE;
    if (*rest)
        xml_set(env, "value", rest);
    else
        xml_remove(env);
    return TRUE;
}

static gboolean remove_environment(xmlNode *line)
{
    gboolean found = FALSE;
    xmlNode *env = xml_child(line, "env", QEMU);

    while (env) {
        xmlNode *next = xml_next(env, "env", QEMU);

        if (value_is(env, "name", SOCKET)) {
            xml_remove(env);
            found = TRUE;
        } else if (value_is(env, "name", PRELOAD)) {
            found |= remove_preload(env);
        }
        env = next;
    }
    return found;
}

gboolean filter_remove(xmlNode *domain)
{
    gboolean found = FALSE;
    xmlNode *line = command_line(domain);

    while (line) {
        xmlNode *next = xml_next(line, "commandline", QEMU);
        gboolean here = remove_arguments(line);

        here |= remove_environment(line);
        if (here && xmlChildElementCount(line) == 0)
            xml_remove(line);
        found |= here;
        line = next;
    }
    return found;
}

/* --- adding -------------------------------------------------------------------------------- */

/* libvirt finds it by the namespace, whatever its prefix. */
static xmlNode *make_command_line(xmlNode *domain)
{
    xmlNs *ns = xmlSearchNsByHref(domain->doc, domain, (const xmlChar *)QEMU);
    xmlNode *line;

    if (!ns)
        ns = xmlNewNs(domain, (const xmlChar *)QEMU, (const xmlChar *)"qemu");
    line = xmlNewChild(domain, NULL, (const xmlChar *)"commandline", NULL);
    /* The prefix means something else in this domain: here it means this. */
    if (!ns)
        ns = xmlNewNs(line, (const xmlChar *)QEMU, (const xmlChar *)"qemu");
    xmlSetNs(line, ns);
    return line;
}

static xmlNode *add(xmlNode *line, const char *name)
{
    return xmlNewChild(line, line->ns, (const xmlChar *)name, NULL);
}

static void add_argument(xmlNode *line, const char *value)
{
    xml_set(add(line, "arg"), "value", value);
}

static void add_environment(xmlNode *line, const char *name, const char *value)
{
    xmlNode *env = add(line, "env");

    xml_set(env, "name", name);
    xml_set(env, "value", value);
}

/* The one that counts of several: the last. */
static xmlNode *find_preload(xmlNode *domain)
{
    xmlNode *found = NULL;

    for (xmlNode *line = command_line(domain); line; line = xml_next(line, "commandline", QEMU))
        for (xmlNode *env = xml_child(line, "env", QEMU); env; env = xml_next(env, "env", QEMU))
            if (value_is(env, "name", PRELOAD))
                found = env;
    return found;
}

static void add_preload(xmlNode *domain, xmlNode *line, const char *library)
{
    xmlNode *env = find_preload(domain);
    g_autofree char *before = xml_attribute(env, "value");
    g_autofree char *list = g_strconcat(before, *before ? ":" : "", library, NULL);

    if (env)
        xml_set(env, "value", list);
    else
        add_environment(line, PRELOAD, library);
}

/* A comma in a value of QEMU's is written twice. */
static char *quote(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, ",", -1);

    return g_strjoinv(",,", parts);
}

void filter_add(xmlNode *domain, const FilterAdditions *additions)
{
    g_autofree char *path = quote(additions->monitor);
    g_autofree char *socket =
        g_strdup_printf("socket,id=" OUR_ID ",path=%s,server=on,wait=off", path);
    xmlNode *line = command_line(domain);

    if (!line)
        line = make_command_line(domain);
    add_argument(line, "-chardev");
    add_argument(line, socket);
    add_argument(line, "-mon");
    add_argument(line, "chardev=" OUR_ID ",id=" OUR_ID ",mode=control");
    add_preload(domain, line, additions->preload);
    add_environment(line, SOCKET, additions->socket);
}
