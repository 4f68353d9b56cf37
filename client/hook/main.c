/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvirt's hook for QEMU domains: NAME OPERATION SUBOPERATION EXTRA, the domain's XML on stdin.  libvirtd
 * waits for it, so it never calls libvirtd, and ends soon whatever happens.
 *
 * Our own trouble is no reason for a migration to fail: it is logged, and the migration goes its usual way.
 *
 * The environment may name other places than the installed ones: POSTCOPYD_CONFIG, POSTCOPYD_PRELOAD,
 * POSTCOPYD_LIBVIRT_RUN.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "client/hook/filter.h"
#include "client/hook/label.h"
#include "client/hook/place.h"
#include "client/hook/started.h"
#include "client/hook/time_limit.h"
#include "client/operator/opt_in.h"
#include "client/operator/xml.h"
#include "protocol/qmp/error.h"

enum { SECONDS = 5 };

static void complain(const char *name, const GError *error)
{
    fprintf(stderr, "postcopyd: %s: %s\n", name, error->message);
    syslog(LOG_WARNING, "domain %s: %s", name, error->message);
}

static xmlDoc *read_domain(GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char bytes[65536];
    ssize_t length;

    while ((length = read(STDIN_FILENO, bytes, sizeof bytes)) > 0 && text->len <= XML_TEXT_MAX)
        g_string_append_len(text, bytes, length);
    return xml_parse(text->str, text->len, error);
}

static gboolean find_place(Place *place, const char *name, const xmlNode *domain, GError **error)
{
    g_autofree char *uuid = xml_text(xml_child(domain, "uuid", NULL));

    if (xml_is(domain, "domain", NULL))
        return place_init(place, name, uuid, error);
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the XML is no domain's");
    return FALSE;
}

/* All of it, however slowly libvirt reads: half a domain would be worse than none. */
static int print(const Place *place, xmlDoc *document)
{
    g_autofree char *text = xml_print(document);
    g_autoptr(GError) error = NULL;

    time_limit_end();
    if (fputs(text, stdout) >= 0 && fflush(stdout) == 0)
        return 0;
    g_set_error(&error, CALL_ERROR, CALL_ERROR_FAILED, "libvirt does not take the XML: %s",
                g_strerror(errno));
    complain(place->name, error);
    return 1; /* it must not go on with what it may have read */
}

/* What libvirt is to start the domain with; nothing on stdout leaves it as it is. */
static int migrate(const Place *place, xmlDoc *document)
{
    const FilterAdditions additions = {
        .preload = place->preload, .socket = place->config->socket, .monitor = place->monitor};
    xmlNode *domain = xmlDocGetRootElement(document);
    OptIn opt_in = opt_in_of_domain(domain);
    gboolean changed = filter_remove(domain);
    g_autoptr(GError) error = NULL;

    if (opt_in_is_on(&opt_in, place->config->enable_all)) {
        if (label_check(domain, &error) && place_check(place, &error)) {
            filter_add(domain, &additions);
            changed = TRUE;
        } else {
            complain(place->name, error);
        }
    }
    return changed ? print(place, document) : 0;
}

/*
 * A guest that was saved after it had arrived comes back with all of its memory: nothing of ours is needed,
 * and none of it must keep QEMU from starting.
 */
static int restore(const Place *place, xmlDoc *document)
{
    return filter_remove(xmlDocGetRootElement(document)) ? print(place, document) : 0;
}

static int started(const Place *place, xmlDoc *document)
{
    xmlNode *domain = xmlDocGetRootElement(document);
    OptIn opt_in = opt_in_of_domain(domain);
    g_autoptr(GError) error = NULL;
    gboolean go_on;

    if (!filter_has_monitor(domain))
        return 0;
    go_on = started_run(place, opt_in.token, &error);
    if (error)
        complain(place->name, error);
    return go_on ? 0 : 1;
}

static int ended(const Place *place, xmlDoc *document)
{
    (void)document;
    place_remove_stale(place);
    return 0;
}

typedef struct Operation {
    const char *name;
    const char *step;
    int (*run)(const Place *place, xmlDoc *document);
} Operation;

static const Operation operations[] = {
    {"migrate", "begin", migrate}, {"restore", "begin", restore}, {"started", "begin", started},
    {"stopped", "end", ended},     {"release", "end", ended},
};

static int run(const Operation *operation, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(xmlDoc) document = NULL;
    Place place = {0};
    int status = 0;

    time_limit_set(SECONDS, 0, "postcopyd: no XML in time\n");
    document = read_domain(&error);
    if (document && find_place(&place, name, xmlDocGetRootElement(document), &error))
        status = operation->run(&place, document);
    else
        complain(name, error);
    place_deinit(&place);
    return status;
}

int main(int argc, char **argv)
{
    openlog("postcopyd-hook", LOG_PID, LOG_DAEMON);
    for (guint i = 0; argc >= 4 && i < G_N_ELEMENTS(operations); i++)
        if (strcmp(argv[2], operations[i].name) == 0 && strcmp(argv[3], operations[i].step) == 0)
            return run(&operations[i], argv[1]);
    return 0;
}
