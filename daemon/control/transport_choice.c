/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/transport_choice.h"

#include <string.h>
#include <unistd.h>

#include "daemon/core/region.h"
#include "daemon/transport/address.h"
#include "daemon/transport/rdma_device.h"
#include "protocol/pagetable.h"

static const char *const names[IMPORT_TRANSPORTS] = {
    [IMPORT_TRANSPORT_AUTO] = "auto",
    [IMPORT_TRANSPORT_TCP] = "tcp",
    [IMPORT_TRANSPORT_RDMA] = "rdma",
};

/* What a host's configuration says for another host, and by which of its settings. */
static unsigned configured(const Settings *settings, const char *host, const char **ret_setting)
{
    unsigned word = networks_word(settings->rdma_peers.parsed, host, IMPORT_TRANSPORTS);

    *ret_setting = word < IMPORT_TRANSPORTS ? "[rdma] peers" : "[peer] transport";
    return word < IMPORT_TRANSPORTS ? word : settings->transport;
}

/* RDMA that is insisted on. */
typedef struct Wish {
    const char *side;    /* whose host this is, for a line that may be read at the other one */
    const char *setting; /* of this host's, that insists; NULL: the driver or the other host does */
    const char *address; /* of the other host, as this one sees it; NULL: not known yet */
} Wish;

/* The parts that every refusal has: who insists, and how to do without. */
typedef struct Reason {
    char who[64], otherwise[128];
} Reason;

static Reason reason_of(const Wish *wish)
{
    Reason reason = {.otherwise = "or use --transport tcp"};

    /* Whoever did not ask for it looks for the setting; --transport auto would mean that setting again. */
    if (wish->setting) {
        g_snprintf(reason.who, sizeof reason.who, " (%s = rdma at the %s)", wish->setting,
                   wish->side);
        g_snprintf(reason.otherwise, sizeof reason.otherwise,
                   "or change %s there, or use --transport tcp", wish->setting);
    }
    return reason;
}

/* FALSE with a line in ret_text. */
static gboolean is_trusted(const Settings *settings, const Wish *wish, char *ret_text)
{
    const NetworkList *networks = &settings->rdma_networks;
    Reason reason = reason_of(wish);

    if (networks_is_empty(networks->parsed))
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "this migration shall go by RDMA%s, which is off at the %s: set [rdma] networks "
                   "in the postcopyd.conf of both hosts to the network between them and restart "
                   "postcopyd, %s",
                   reason.who, wish->side, reason.otherwise);
    else if (wish->address && !networks_match(networks->parsed, wish->address))
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "this migration shall go by RDMA%s, and the other host, %.100s, is in none of "
                   "[rdma] networks = %.200s at the %s: add the network between the hosts in "
                   "postcopyd.conf there and restart postcopyd, %s",
                   reason.who, wish->address, networks->text, wish->side, reason.otherwise);
    else
        return TRUE;
    return FALSE;
}

/* By TCP that is configured for.  Of a host whose address is not known yet, [rdma] peers may say otherwise. */
static gboolean is_vetoed(const Settings *settings, const Wish *wish, const char **ret_setting)
{
    if (!wish->address && !networks_is_empty(settings->rdma_peers.parsed))
        return FALSE;
    return configured(settings, wish->address ? wish->address : "", ret_setting) ==
           IMPORT_TRANSPORT_TCP;
}

static gboolean may_use_rdma(const Settings *settings, const Wish *wish, char *ret_text)
{
    char devices[LIMIT_TEXT + 1];
    const char *setting;
    Reason reason;

    if (is_vetoed(settings, wish, &setting)) {
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "this migration shall go by RDMA, which %s = tcp at the %s forbids%s%.100s: "
                   "change that in postcopyd.conf there and restart postcopyd, or use --transport "
                   "tcp",
                   setting, wish->side, wish->address ? " with " : "",
                   wish->address ? wish->address : "");
        return FALSE;
    }
    if (!is_trusted(settings, wish, ret_text))
        return FALSE;
    if (rdma_list_devices(devices, sizeof devices) > 0)
        return TRUE;
    reason = reason_of(wish);
    g_snprintf(ret_text, LIMIT_TEXT + 1,
               "this migration shall go by RDMA%s, and the %s has no RDMA device: 'postcopyctl "
               "check' there says what is missing, %s",
               reason.who, wish->side, reason.otherwise);
    return FALSE;
}

const char *transport_name(unsigned transport)
{
    return names[transport];
}

/* The destination's, if the request names it by its address; NULL: it does not. */
static const char *named_address(JsonObject *request, Address *ret_address)
{
    JsonNode *node = json_object_get_member(request, "destination");

    if (!node || !JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_STRING ||
        address_parse(json_node_get_string(node), ret_address) || !ret_address->host[0] ||
        !address_is_numeric(ret_address))
        return NULL;
    return ret_address->host;
}

gboolean transport_asked(const Control *control, JsonObject *request, unsigned *ret_transport,
                         char *ret_text)
{
    JsonNode *node = json_object_get_member(request, "transport");
    const char *word = NULL;
    Address address;
    Wish wish = {.side = "source", .address = named_address(request, &address)};

    *ret_transport = IMPORT_TRANSPORT_AUTO;
    if (!node)
        return TRUE;
    if (JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING)
        word = json_node_get_string(node);
    for (unsigned i = 0; word && i < IMPORT_TRANSPORTS; i++)
        if (strcmp(word, names[i]) == 0) {
            *ret_transport = i;
            return i != IMPORT_TRANSPORT_RDMA || may_use_rdma(control->settings, &wish, ret_text);
        }
    g_strlcpy(ret_text, "prepare: transport must be auto, tcp or rdma", LIMIT_TEXT + 1);
    return FALSE;
}

gboolean transport_invite(const Settings *settings, unsigned asked, const PeerSocket *peer,
                          guint32 *ret_flags, char *ret_text)
{
    char host[LIMIT_ADDRESS + 1];
    Wish wish = {.side = "source", .address = host};

    *ret_flags = 0;
    if (address_peer_host(peer->fd, host, sizeof host))
        host[0] = '\0';
    if (asked == IMPORT_TRANSPORT_AUTO)
        asked = configured(settings, host, &wish.setting);
    if (asked == IMPORT_TRANSPORT_RDMA && !(peer->features & PEER_FEATURE_RDMA)) {
        Reason reason = reason_of(&wish);

        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "this migration shall go by RDMA%s, which the daemon at %.100s does not know: "
                   "install this version there, %s",
                   reason.who, host, reason.otherwise);
        return FALSE;
    }
    if (asked == IMPORT_TRANSPORT_RDMA && !may_use_rdma(settings, &wish, ret_text))
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

/*
 * A host that is configured for TCP has no RDMA, whoever wants it.  What is already on its way cannot be refused
 * any more: it goes by TCP.
 */
static unsigned choose(const Settings *settings, const char *host, guint32 flags,
                       bool *ret_overruled)
{
    const char *setting;
    unsigned own = configured(settings, host, &setting);

    *ret_overruled = flags & PEER_INVITE_TCP && own == IMPORT_TRANSPORT_RDMA;
    /* TCP also where a peer sets both, as it must not. */
    if (flags & PEER_INVITE_TCP || own == IMPORT_TRANSPORT_TCP)
        return IMPORT_TRANSPORT_TCP;
    return flags & PEER_INVITE_RDMA ? IMPORT_TRANSPORT_RDMA : own;
}

gboolean transport_accept(const Control *control, const Invitation *invitation, char *ret_text)
{
    guint32 flags = invitation->message->invite.flags;
    char host[LIMIT_ADDRESS + 1];
    Wish wish = {.side = "destination", .address = host};
    unsigned wanted = flags & PEER_INVITE_TCP    ? IMPORT_TRANSPORT_TCP
                      : flags & PEER_INVITE_RDMA ? IMPORT_TRANSPORT_RDMA
                                                 : IMPORT_TRANSPORT_AUTO;

    take_host(invitation->message->invite.source, invitation->peer_host, host);
    if (wanted == IMPORT_TRANSPORT_AUTO)
        wanted = configured(control->settings, host, &wish.setting);
    return wanted != IMPORT_TRANSPORT_RDMA || may_use_rdma(control->settings, &wish, ret_text);
}

gboolean transport_lends(const Settings *settings, const char *host, char *ret_text)
{
    const NetworkList *trusted = &settings->rdma_networks;
    const char *setting;

    if (networks_is_empty(trusted->parsed))
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "RDMA is off at the source: [rdma] networks there lists nothing");
    else if (!networks_match(trusted->parsed, host))
        g_snprintf(ret_text, LIMIT_TEXT + 1, "%s is in none of the source's [rdma] networks", host);
    else if (configured(settings, host, &setting) == IMPORT_TRANSPORT_TCP)
        g_snprintf(ret_text, LIMIT_TEXT + 1, "%s = tcp at the source forbids RDMA with %s", setting,
                   host);
    else
        return TRUE;
    return FALSE;
}

void transport_configure(Control *control, const char *source, guint32 flags, ImportConfig *config)
{
    char host[LIMIT_ADDRESS + 1];

    take_host(source, "", host);
    config->transport = choose(control->settings, host, flags, &config->rdma_overruled);
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

    /* The client's to spoil, which changes nothing of which networks are trusted; and it may be any file, so that
     * reading it might never end. */
    if (!region_file_is_memory(table) ||
        pread(table, source, LIMIT_ADDRESS, offsetof(PageTableHeader, source)) < 0 ||
        pread(table, &progress, sizeof progress, offsetof(PageTableHeader, progress)) < 0)
        progress = 0;
    source[LIMIT_ADDRESS] = '\0';
    if (progress & PAGE_TABLE_TCP)
        flags |= PEER_INVITE_TCP;
    if (progress & PAGE_TABLE_RDMA)
        flags |= PEER_INVITE_RDMA;
    transport_configure(control, source, flags, config);
}
