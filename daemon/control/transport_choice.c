/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/transport_choice.h"

#include <string.h>
#include <unistd.h>

#include "daemon/transport/address.h"
#include "daemon/transport/rdma_device.h"
#include "protocol/pagetable.h"

static const char *const names[IMPORT_TRANSPORTS] = {
    [IMPORT_TRANSPORT_AUTO] = "auto",
    [IMPORT_TRANSPORT_TCP] = "tcp",
    [IMPORT_TRANSPORT_RDMA] = "rdma",
};

/* What a host's configuration says for another host. */
static unsigned configured(const Settings *settings, const char *host)
{
    return networks_word(settings->rdma_peers.parsed, host, settings->transport);
}

/*
 * side: whose host this is, for a line that may be read at the other one.  address: of the other host, as
 * this one sees it; NULL: not known yet.
 */
static gboolean may_use_rdma(const Settings *settings, const char *side, const char *address,
                             char *ret_text)
{
    const NetworkList *networks = &settings->rdma_networks;
    char devices[LIMIT_TEXT + 1];

    if (networks_is_empty(networks->parsed))
        g_snprintf(
            ret_text, LIMIT_TEXT + 1,
            "this migration shall go by RDMA, which is off at the %s: set [rdma] networks in "
            "the postcopyd.conf of both hosts to the network between them and restart "
            "postcopyd, or use --transport auto",
            side);
    else if (address && !networks_match(networks->parsed, address))
        g_snprintf(
            ret_text, LIMIT_TEXT + 1,
            "this migration shall go by RDMA, and the other host, %.100s, is in none of [rdma] "
            "networks = %.200s at the %s: add the network between the hosts in postcopyd.conf "
            "there and restart postcopyd, or use --transport auto",
            address, networks->text, side);
    else if (rdma_list_devices(devices, sizeof devices) == 0)
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "this migration shall go by RDMA, and the %s has no RDMA device: 'postcopyctl "
                   "check' there says what is missing, or use --transport auto",
                   side);
    else
        return TRUE;
    return FALSE;
}

const char *transport_name(unsigned transport)
{
    return names[transport];
}

gboolean transport_asked(const Control *control, JsonObject *request, unsigned *ret_transport,
                         char *ret_text)
{
    JsonNode *node = json_object_get_member(request, "transport");
    const char *word = NULL;

    *ret_transport = IMPORT_TRANSPORT_AUTO;
    if (!node)
        return TRUE;
    if (JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING)
        word = json_node_get_string(node);
    for (unsigned i = 0; word && i < IMPORT_TRANSPORTS; i++)
        if (strcmp(word, names[i]) == 0) {
            *ret_transport = i;
            return i != IMPORT_TRANSPORT_RDMA ||
                   may_use_rdma(control->settings, "source", NULL, ret_text);
        }
    g_strlcpy(ret_text, "prepare: transport must be auto, tcp or rdma", LIMIT_TEXT + 1);
    return FALSE;
}

gboolean transport_invite(const Settings *settings, unsigned asked, const PeerSocket *peer,
                          guint32 *ret_flags, char *ret_text)
{
    char host[LIMIT_ADDRESS + 1];

    *ret_flags = 0;
    if (address_peer_host(peer->fd, host, sizeof host))
        host[0] = '\0';
    if (asked == IMPORT_TRANSPORT_AUTO)
        asked = configured(settings, host);
    if (asked == IMPORT_TRANSPORT_RDMA && !(peer->features & PEER_FEATURE_RDMA)) {
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "this migration shall go by RDMA, which the daemon at %.100s does not know: "
                   "install this "
                   "version there, or use --transport auto",
                   host);
        return FALSE;
    }
    if (asked == IMPORT_TRANSPORT_RDMA && !may_use_rdma(settings, "source", host, ret_text))
        return FALSE;
    /* Others go by TCP whatever they are told, and may take a flag they do not know amiss. */
    if (peer->features & PEER_FEATURE_RDMA)
        *ret_flags = asked == IMPORT_TRANSPORT_RDMA  ? PEER_INVITE_RDMA
                     : asked == IMPORT_TRANSPORT_TCP ? PEER_INVITE_TCP
                                                     : 0;
    return TRUE;
}

/* Of HOST:PORT; "" where there is none. */
static void take_host(const char *text, const char *otherwise, char *ret_host)
{
    Address address;

    if (address_parse(text, &address))
        address.host[0] = '\0';
    g_strlcpy(ret_host, address.host[0] ? address.host : otherwise, LIMIT_ADDRESS + 1);
}

static unsigned choose(const Settings *settings, const char *host, guint32 flags)
{
    if (flags & PEER_INVITE_TCP) /* also where a peer sets both, as it must not */
        return IMPORT_TRANSPORT_TCP;
    return flags & PEER_INVITE_RDMA ? IMPORT_TRANSPORT_RDMA : configured(settings, host);
}

gboolean transport_accept(const Control *control, const Invitation *invitation, char *ret_text)
{
    const PeerMessage *message = invitation->message;
    char host[LIMIT_ADDRESS + 1];

    take_host(message->invite.source, invitation->peer_host, host);
    return choose(control->settings, host, message->invite.flags) != IMPORT_TRANSPORT_RDMA ||
           may_use_rdma(control->settings, "destination", host, ret_text);
}

void transport_configure(Control *control, const char *source, guint32 flags, ImportConfig *config)
{
    char host[LIMIT_ADDRESS + 1];

    take_host(source, "", host);
    config->transport = choose(control->settings, host, flags);
    config->rdma_networks = control->settings->rdma_networks.parsed;
    config->rdma_budget = &control->rdma_budget;
}

void transport_remember(PageTable *table, guint32 flags)
{
    if (flags & PEER_INVITE_TCP)
        page_table_set(table, PAGE_TABLE_TCP);
    else if (flags & PEER_INVITE_RDMA)
        page_table_set(table, PAGE_TABLE_RDMA);
}

void transport_configure_adopted(Control *control, int table, ImportConfig *config)
{
    char source[LIMIT_ADDRESS + 1] = "";
    guint32 progress = 0, flags = 0;

    /* The client's to spoil, which changes nothing of which networks are trusted. */
    if (pread(table, source, LIMIT_ADDRESS, offsetof(PageTableHeader, source)) < 0 ||
        pread(table, &progress, sizeof progress, offsetof(PageTableHeader, progress)) < 0)
        progress = 0;
    source[LIMIT_ADDRESS] = '\0';
    if (progress & PAGE_TABLE_TCP)
        flags |= PEER_INVITE_TCP;
    if (progress & PAGE_TABLE_RDMA)
        flags |= PEER_INVITE_RDMA;
    transport_configure(control, source, flags, config);
}
