/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/libvirt_obstacle.h"

#include <string.h>

#include "client/ctl/address.h"
#include "protocol/qmp/error.h"

/* An element below <devices> that, with this attribute (of itself, or of a child), is in the way. */
typedef struct Obstacle {
    const char *element;
    const char *child;             /* NULL: the element itself */
    const char *attribute, *value; /* attribute NULL: the element alone says enough */
    const char *reason;
} Obstacle;

static const char vfio[] = "a host device (VFIO) pins the guest's memory: detach it first";
static const char vhost_user[] =
    "a vhost-user backend maps the guest's memory a second time, unseen by post-copy: detach it";

static const Obstacle obstacles[] = {
    {"hostdev", NULL, "type", "pci", vfio},
    {"hostdev", NULL, "type", "mdev", vfio},
    {"interface", NULL, "type", "hostdev", vfio},
    {"interface", NULL, "type", "vdpa", vfio},
    {"interface", NULL, "type", "vhostuser", vhost_user},
    {"disk", NULL, "type", "vhostuser", vhost_user},
    {"disk", NULL, "type", "vhostvdpa", vfio},
    {"disk", "source", "type", "nvme", vfio},
    {"disk", NULL, "type", "nvme", vfio},
    {"filesystem", "driver", "type", "virtiofs", vhost_user},
    {"video", "driver", "name", "vhostuser", vhost_user},
    {"input", "driver", "name", "vhostuser", vhost_user},
};

typedef struct Search {
    const char *found;
    char *device; /* below <devices>, being read */
} Search;

static const char *attribute(const char **names, const char **values, const char *name)
{
    for (; *names; names++, values++)
        if (strcmp(*names, name) == 0)
            return *values;
    return "";
}

static void on_start(GMarkupParseContext *context, const char *element, const char **names,
                     const char **values, gpointer user, GError **error)
{
    const GSList *stack = g_markup_parse_context_get_element_stack(context);
    guint depth = g_slist_length((GSList *)stack);
    Search *search = user;

    (void)error;
    if (depth == 3 && strcmp(stack->next->data, "devices") == 0) {
        g_free(search->device);
        search->device = g_strdup(element);
    } else if (depth <= 3) {
        g_clear_pointer(&search->device, g_free);
    }
    if (!search->device || depth > 4)
        return;
    for (guint i = 0; i < G_N_ELEMENTS(obstacles); i++) {
        const Obstacle *o = &obstacles[i];
        gboolean here = depth == 3 ? !o->child : o->child && strcmp(o->child, element) == 0;

        if (here && strcmp(o->element, search->device) == 0 &&
            strcmp(attribute(names, values, o->attribute), o->value) == 0)
            search->found = o->reason;
    }
}

char *libvirt_obstacle(const char *domain_xml, GError **error)
{
    static const GMarkupParser parser = {.start_element = on_start};
    Search search = {NULL, NULL};
    GMarkupParseContext *context = g_markup_parse_context_new(&parser, 0, &search, NULL);

    if (g_markup_parse_context_parse(context, domain_xml, -1, error))
        g_markup_parse_context_end_parse(context, error);
    g_markup_parse_context_free(context);
    g_free(search.device);
    return *error ? NULL : g_strdup(search.found);
}

char *libvirt_daemon_address(const char *said, const char *uri, GError **error)
{
    g_autoptr(GUri) parsed = NULL;
    g_autofree char *bracketed = NULL;
    const char *host;

    if (said)
        return address_complete("--to", said, error);
    parsed = g_uri_parse(uri, G_URI_FLAGS_NON_DNS | G_URI_FLAGS_PARSE_RELAXED, NULL);
    host = parsed ? g_uri_get_host(parsed) : NULL;
    if (!host || !*host) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                    "'%s' names no host: give the destination's libvirt as "
                    "qemu+ssh://HOST/system, or name its daemon with --to HOST[:PORT]",
                    uri);
        return NULL;
    }
    bracketed = g_strdup_printf(strchr(host, ':') ? "[%s]" : "%s", host);
    return address_complete("DESTURI's host", bracketed, error);
}
