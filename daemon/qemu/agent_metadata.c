/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which domains take part, and their tokens.  A token is made when a domain is first seen to run here and goes
 * with it when it migrates: the new host's hook finds it in the domain's XML.  On lanes.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/core/log.h"
#include "daemon/qemu/agent_private.h"
#include "protocol/text.h"

gboolean agent_read_mark(virDomainPtr domain, Mark *ret_mark, gboolean *ret_known)
{
    char *xml = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE,
                                     VIR_DOMAIN_AFFECT_LIVE);

    memset(ret_mark, 0, sizeof *ret_mark);
    *ret_known = TRUE;
    if (!xml)
        return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN_METADATA;
    *ret_known = mark_parse(xml, ret_mark);
    free(xml);
    return TRUE;
}

/* Whose word whether it takes part it is: what stands there, or our caller's. */
typedef enum Word { WORD_THERE, WORD_OURS } Word;

/* Reads once more just before: others write there, too. */
static gboolean write_mark(virDomainPtr domain, const Mark *mark, Word word)
{
    char *before = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE,
                                        VIR_DOMAIN_AFFECT_LIVE);
    gboolean readable = before || virGetLastErrorCode() == VIR_ERR_NO_DOMAIN_METADATA;
    g_autofree char *xml = NULL;
    Mark there = {0}, next = *mark;

    if (before && !mark_parse(before, &there))
        readable = FALSE;
    if (word == WORD_THERE)
        next.enabled = there.enabled;
    xml = readable ? mark_write(&next, before) : NULL;
    free(before);
    return readable && virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, xml, MARK_PREFIX,
                                            MARK_NAMESPACE, VIR_DOMAIN_AFFECT_LIVE) == 0;
}

gboolean agent_write_mark(virDomainPtr domain, const Mark *mark)
{
    return write_mark(domain, mark, WORD_THERE);
}

/* What the domain's definition says of the same, which nobody but its owner writes. FALSE: it is not known,
 * or there is no definition. */
static gboolean read_definition(virDomainPtr domain, MarkEnabled *ret_enabled)
{
    char *xml = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE,
                                     VIR_DOMAIN_AFFECT_CONFIG);
    Mark mark = {0};
    gboolean read =
        xml ? mark_parse(xml, &mark) : virGetLastErrorCode() == VIR_ERR_NO_DOMAIN_METADATA;

    free(xml);
    *ret_enabled = mark.enabled;
    return read;
}

static gboolean make_token(guint8 *ret_token)
{
    ssize_t n;

    do
        n = getrandom(ret_token, LIMIT_TOKEN, 0);
    while (n < 0 && errno == EINTR);
    return n == LIMIT_TOKEN;
}

gboolean agent_is_busy(virDomainPtr domain)
{
    virDomainJobInfo info;

    if (virDomainGetJobInfo(domain, &info) == 0)
        return info.type == VIR_DOMAIN_JOB_BOUNDED || info.type == VIR_DOMAIN_JOB_UNBOUNDED;
    return virGetLastErrorCode() != VIR_ERR_NO_SUPPORT;
}

/* One line a domain: it is tried again and again. */
static void complain(AgentJob *job, virDomainPtr domain, const char *problem)
{
    AgentDomain *known;
    gboolean logged;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain_make(job->agent, job->uuid);
    logged = known->complained;
    known->complained = TRUE;
    pthread_mutex_unlock(&job->agent->lock);
    if (!logged)
        log_warning("domain %s: %s", virDomainGetName(domain), problem);
}

static void complain_of_libvirt(AgentJob *job, virDomainPtr domain)
{
    g_autofree char *why = agent_error();

    complain(job, domain, why);
}

/* What it has now is a token that was made here. */
static void set_own(AgentJob *job)
{
    AgentDomain *known;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    if (known)
        known->renew = FALSE;
    pthread_mutex_unlock(&job->agent->lock);
}

/* What it has was made by another host, or by a daemon before us: whoever got to know it there may ask with
 * it, so it is renewed as soon as nobody needs it. */
static void set_foreign(AgentJob *job)
{
    pthread_mutex_lock(&job->agent->lock);
    agent_domain_make(job->agent, job->uuid)->renew = TRUE;
    pthread_mutex_unlock(&job->agent->lock);
}

/* While we were not connected it may have been away, and come back. */
static gboolean is_another_run(AgentJob *job, virDomainPtr domain)
{
    const AgentDomain *known;
    gboolean another;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    another = known && known->run != 0 && known->run != virDomainGetID(domain);
    pthread_mutex_unlock(&job->agent->lock);
    return another;
}

/* As our protocols take a name. */
static void set_name(AgentDomain *known, const char *name)
{
    size_t length = text_whole(name, MIN(strlen(name), (size_t)LIMIT_NAME));

    memcpy(known->name, name, length);
    known->name[length] = '\0';
    text_mend(known->name, length);
}

static void remember(AgentJob *job, virDomainPtr domain, const Mark *mark, gboolean enabled,
                     gboolean look_again)
{
    AgentDomain *known;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    if (!known && (enabled || look_again))
        known = agent_domain_make(job->agent, job->uuid);
    if (known) {
        set_name(known, virDomainGetName(domain));
        known->run = virDomainGetID(domain);
        known->enabled = enabled;
        known->look_again = look_again;
        known->has_token = mark && mark->has_token;
        if (known->has_token)
            memcpy(known->token, mark->token, LIMIT_TOKEN);
        if (known->has_token)
            known->complained = FALSE;
    }
    pthread_mutex_unlock(&job->agent->lock);
}

/* What is known of it stays: it was not to be found out what has become of it. */
static void look_again(AgentJob *job, virDomainPtr domain)
{
    AgentDomain *known;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain_make(job->agent, job->uuid);
    set_name(known, virDomainGetName(domain));
    known->look_again = TRUE;
    pthread_mutex_unlock(&job->agent->lock);
}

/* The token that we remember; FALSE: none, or another host's. */
static gboolean remembered(AgentJob *job, guint8 *ret_token)
{
    const AgentDomain *known;
    gboolean has_token;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    has_token = known && known->has_token && !known->renew;
    if (has_token)
        memcpy(ret_token, known->token, LIMIT_TOKEN);
    pthread_mutex_unlock(&job->agent->lock);
    return has_token;
}

/* Metadata and memory are to hold the same token. TRUE: it was written. */
static gboolean settle_token(AgentJob *job, virDomainPtr domain, Mark *mark)
{
    guint8 token[LIMIT_TOKEN];
    gboolean had = remembered(job, token);

    if (had && mark->has_token && memcmp(token, mark->token, LIMIT_TOKEN) == 0) {
        remember(job, domain, mark, TRUE, FALSE);
        return FALSE;
    }
    /*
     * Another's token stays where one is needed soon: it may be on its way with a migration that
     * began before this daemon did.  It also stays where somebody put it in the place of ours; two
     * who write in turns would never end.
     */
    if (agent_is_busy(domain)) {
        remember(job, domain, mark, TRUE, TRUE);
        set_foreign(job);
        return FALSE;
    }
    if (had && mark->has_token && job->reason == LOOK_CHANGED) {
        remember(job, domain, mark, TRUE, FALSE);
        return FALSE;
    }
    if (!had && !make_token(token)) {
        complain(job, domain, "the system has no random numbers: it gets no token");
        remember(job, domain, NULL, TRUE, TRUE);
        return FALSE;
    }
    mark->has_token = TRUE;
    memcpy(mark->token, token, LIMIT_TOKEN);
    if (agent_write_mark(domain, mark)) {
        remember(job, domain, mark, TRUE, FALSE);
        set_own(job);
        return TRUE;
    }
    complain_of_libvirt(job, domain);
    remember(job, domain, NULL, TRUE, TRUE);
    return FALSE;
}

/* What the definition said at the last look, if there was one; and what it says now. */
static void exchange_definition(AgentJob *job, MarkEnabled *ret_before, MarkEnabled now)
{
    AgentDomain *known;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    if (known && known->has_defined)
        *ret_before = known->defined;
    if (known) {
        known->has_defined = TRUE;
        known->defined = now;
    }
    pthread_mutex_unlock(&job->agent->lock);
}

/*
 * libvirt has no way to change a part of it, so our write may have undone what the owner wrote at the same
 * moment.  He writes it into the definition as well: what changed there lately is what he wants.
 */
static void keep_owners_word(AgentJob *job, virDomainPtr domain, Mark *mark, MarkEnabled before,
                             gboolean written)
{
    MarkEnabled now;

    if (!read_definition(domain, &now))
        return;
    exchange_definition(job, &before, now);
    if (!written || now == before || now == MARK_UNSET || now == mark->enabled)
        return;
    mark->enabled = now;
    if (!write_mark(domain, mark, WORD_OURS))
        complain_of_libvirt(job, domain);
}

/* A capability that was left on is a matter of the first look, not of each. */
static void look_at_capability(const AgentJob *job, const Mark *mark, gboolean enabled)
{
    AgentJob check = {.agent = job->agent};

    memcpy(check.uuid, job->uuid, sizeof check.uuid);
    if (mark->ignore_shared ? job->reason != LOOK_CHANGED
                            : enabled && job->reason == LOOK_CONNECTED)
        agent_post(&check, LANE_DOMAIN, agent_check_capability);
}

void agent_look(AgentJob *job)
{
    gboolean gone, known, enabled, defined;
    virDomainPtr domain = agent_find(job->agent, job->uuid, &gone);
    MarkEnabled definition;
    Mark mark;

    if (!domain) {
        if (gone)
            agent_forget(job->agent, job->uuid);
        return; /* without a connection: there is a look when it is back */
    }
    defined = read_definition(domain, &definition);
    if (!agent_read_mark(domain, &mark, &known)) {
        look_again(job, domain);
    } else {
        if (!known)
            complain(job, domain,
                     "its metadata in " MARK_NAMESPACE " is not understood: left alone");
        enabled = mark_takes_part(&mark, job->agent->all);
        if (enabled && (job->reason == LOOK_ARRIVED || is_another_run(job, domain)))
            set_foreign(job);
        if (!enabled)
            remember(job, domain, NULL, FALSE, FALSE);
        else {
            gboolean written = settle_token(job, domain, &mark);

            if (defined)
                keep_owners_word(job, domain, &mark, definition, written);
        }
        look_at_capability(job, &mark, enabled);
    }
    virDomainFree(domain);
}
