/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/peer_ask.h"

#include <errno.h>
#include <string.h>

#include "daemon/control/departure_lent.h"
#include "daemon/qemu/outgoing.h"
#include "daemon/source/export.h"

/* What is known of the VM that somebody asks for. */
typedef struct Inquiry {
    GuestProcess process;
    Outgoing outgoing;
    RegionSet regions;
    gboolean limited; /* its QEMU's post-copy stream is, by whoever migrates it, or nobody knows */
    PeerErrorCode code;
    char text[LIMIT_TEXT + 1];
} Inquiry;

static void say(PeerMessage *asked, PeerErrorCode code, const char *text)
{
    memset(asked, 0, sizeof *asked);
    asked->type = PEER_ASKED;
    asked->asked.code = code;
    g_strlcpy(asked->asked.text, text, sizeof asked->asked.text);
}

Guest *peer_ask_open(Control *control, const PeerMessage *ask, PeerMessage *ret_asked)
{
    char text[LIMIT_TEXT + 1];
    Guest *guest = NULL;
    int error = guests_open(control->guests, ask->ask.uuid, &guest, text);

    if (error) {
        say(ret_asked, error == -ENOENT ? PEER_ERROR_UNKNOWN_VM : PEER_ERROR_REFUSED, text);
        return NULL;
    }
    if (guest->has_token && export_secrets_equal(guest->token, ask->ask.token, sizeof guest->token))
        return guest;
    say(ret_asked, PEER_ERROR_TOKEN,
        guest->has_token ? "the token is not that of this VM"
                         : "nobody may ask for this VM: it was not enabled (postcopyctl enable)");
    guest_close(guest);
    return NULL;
}

static void inquire(const Guest *guest, const PeerMessage *ask, Inquiry *inquiry)
{
    char *text = inquiry->text;

    inquiry->code = PEER_ERROR_REFUSED;
    if (guest_process(guest, &inquiry->process, text) || guest_check_leaving(guest, text) ||
        outgoing_find(inquiry->process.pid, ask->ask.connection, &inquiry->outgoing, text))
        return;
    inquiry->limited = guest_postcopy_is_limited(guest);
    inquiry->code = guest_regions(guest, inquiry->process.pid, &inquiry->regions, text)
                        ? PEER_ERROR_REGIONS
                        : PEER_ERROR_NONE;
}

/* Has the control thread make the departure, and waits for it. */
static void lend(Control *control, const Guest *guest, const char *peer_host, Inquiry *inquiry,
                 PeerMessage *ret_asked)
{
    g_autofree Lending *lending = g_new0(Lending, 1);

    lending->uuid = guest->uuid;
    lending->name = guest->name;
    lending->peer_host = peer_host;
    lending->process = inquiry->process;
    lending->outgoing = &inquiry->outgoing;
    lending->regions = &inquiry->regions;
    pthread_mutex_init(&lending->lock, NULL);
    pthread_cond_init(&lending->changed, NULL);
    control_post(control, departure_lend, lending);
    pthread_mutex_lock(&lending->lock);
    while (!lending->answered)
        pthread_cond_wait(&lending->changed, &lending->lock);
    pthread_mutex_unlock(&lending->lock);
    pthread_cond_destroy(&lending->changed);
    pthread_mutex_destroy(&lending->lock);

    inquiry->process = lending->process;
    say(ret_asked, lending->code, lending->text);
    memcpy(ret_asked->asked.token, lending->token, sizeof lending->token);
    ret_asked->asked.flags =
        lending->code == PEER_ERROR_NONE && !inquiry->limited ? PEER_ASKED_AHEAD : 0;
}

void peer_ask_serve(Control *control, Guest *guest, const char *peer_host, const PeerMessage *ask,
                    PeerMessage *ret_asked)
{
    g_autofree Inquiry *inquiry = g_new0(Inquiry, 1);

    inquiry->process.pidfd = -1;
    inquire(guest, ask, inquiry);
    if (inquiry->code == PEER_ERROR_NONE)
        lend(control, guest, peer_host, inquiry, ret_asked);
    else
        say(ret_asked, inquiry->code, inquiry->text);
    guest_process_clear(&inquiry->process);
    region_set_deinit(&inquiry->regions);
    guest_close(guest);
}
