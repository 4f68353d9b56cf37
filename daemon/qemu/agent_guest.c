/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvirt's domains as Guests.  Whoever asks waits for a bounded time: the question itself is put on a lane of
 * the domain, where libvirt may keep it as long as it likes.  Threads of peers, and lanes.
 */
#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/core/process.h"
#include "daemon/qemu/agent_private.h"
#include "daemon/qemu/timed.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"
#include "protocol/qmp/libvirt_pid.h"

/* --- a command by way of libvirt ------------------------------------------------------------ */

/* Takes arguments. */
static char *command_line(const char *command, JsonObject *arguments)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "execute", command);
    if (arguments)
        json_object_set_object_member(object, "arguments", arguments);
    return object_line(object);
}

/* What QEMU returned, of the whole answer. */
static JsonNode *parse_answer(const char *text, GError **error)
{
    g_autoptr(JsonNode) root = node_parse(text, -1, error);
    JsonObject *object = node_object(root);

    if (!root)
        return NULL;
    if (object && json_object_has_member(object, "return"))
        return json_object_dup_member(object, "return");
    g_set_error(error, CALL_ERROR, CALL_ERROR_REFUSED, "%s",
                member_string(member_object(object, "error"), "desc"));
    return NULL;
}

/* The answer's text, the caller's; NULL with error. */
static char *ask(virDomainPtr domain, const char *line, GError **error)
{
    char *answer = NULL, *copy;

    if (virDomainQemuMonitorCommand(domain, line, &answer,
                                    VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT) < 0) {
        g_autofree char *why = agent_error();
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "libvirt: %s", why);
        return NULL;
    }
    copy = strnlen(answer, MONITOR_ANSWER_MAX + 1) <= MONITOR_ANSWER_MAX ? g_strdup(answer) : NULL;
    free(answer);
    if (!copy)
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "libvirt: the monitor's answer is too long");
    return copy;
}

static JsonNode *call_now(void *user, const char *command, JsonObject *arguments, GError **error)
{
    g_autofree char *line = command_line(command, arguments);
    g_autofree char *answer = ask(user, line, error);

    return answer ? parse_answer(answer, error) : NULL;
}

Monitor agent_domain_monitor(virDomainPtr domain)
{
    return (Monitor){.call = call_now, .user = domain};
}

/* --- the same within a time ----------------------------------------------------------------- */

/* Of two threads: who asks, and the lane; the last one frees it. */
typedef struct Question {
    Agent *agent;
    guint8 uuid[LIMIT_UUID];
    char *line;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned holders;
    gboolean answered;
    gboolean given_up; /* nobody waits any more */
    char *answer;
    GError *error;
} Question;

static void question_unref(Question *question)
{
    gboolean last;

    pthread_mutex_lock(&question->lock);
    last = --question->holders == 0;
    pthread_mutex_unlock(&question->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&question->lock);
    pthread_cond_destroy(&question->changed);
    g_free(question->line);
    g_free(question->answer);
    g_clear_error(&question->error);
    g_free(question);
}

/* Takes both. */
static void question_answer(Question *question, char *answer, GError *error)
{
    pthread_mutex_lock(&question->lock);
    question->answer = answer;
    question->error = error;
    question->answered = TRUE;
    pthread_cond_signal(&question->changed);
    pthread_mutex_unlock(&question->lock);
    question_unref(question);
}

static gboolean is_given_up(Question *question)
{
    gboolean given_up;

    pthread_mutex_lock(&question->lock);
    given_up = question->given_up;
    pthread_mutex_unlock(&question->lock);
    return given_up;
}

static void run_question(void *data)
{
    Question *question = data;
    GError *error = NULL;
    virDomainPtr domain = NULL;
    char *answer = NULL;
    gboolean gone = FALSE;

    if (!is_given_up(question))
        domain = agent_find(question->agent, question->uuid, &gone);
    if (domain) {
        answer = ask(domain, question->line, &error);
        virDomainFree(domain);
    } else {
        g_set_error(&error, CALL_ERROR, CALL_ERROR_CLOSED, "libvirt: %s",
                    gone ? "the domain does not run any more" : "it cannot be reached now");
    }
    question_answer(question, answer, error);
}

static void drop_question(void *data)
{
    question_answer(data, NULL,
                    g_error_new(CALL_ERROR, CALL_ERROR_CLOSED, "the daemon is stopping"));
}

/* Takes line. */
static Question *question_new(const Guest *guest, Agent *agent, char *line)
{
    Question *question = g_new0(Question, 1);

    question->agent = agent;
    memcpy(question->uuid, guest->uuid, sizeof question->uuid);
    question->line = line;
    question->holders = 2;
    pthread_mutex_init(&question->lock, NULL);
    timed_init(&question->changed);
    return question;
}

/* The answer's text, the caller's. */
static char *wait_answer(Question *question, gint64 deadline, GError **error)
{
    char *answer = NULL;

    pthread_mutex_lock(&question->lock);
    while (!question->answered && timed_wait(&question->changed, &question->lock, deadline))
        ;
    question->given_up = !question->answered;
    if (question->given_up)
        g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT,
                    "libvirt has not passed on an answer of the monitor in time");
    else if (question->error)
        g_propagate_error(error, g_steal_pointer(&question->error));
    else
        answer = g_steal_pointer(&question->answer);
    pthread_mutex_unlock(&question->lock);
    return answer;
}

/* --- the Guest ------------------------------------------------------------------------------ */

typedef struct DomainGuest {
    Guest guest;
    Agent *agent;
    gint64 deadline; /* of all questions that this Guest is asked; 0 before the first */
} DomainGuest;

static JsonNode *call_in_time(void *user, const char *command, JsonObject *arguments,
                              GError **error)
{
    DomainGuest *self = user;
    g_autofree char *line = command_line(command, arguments);
    LaneKey key = {.kind = LANE_MONITOR};
    g_autofree char *answer = NULL;
    Question *question;

    if (self->deadline == 0)
        self->deadline = timed_deadline(GUEST_ALL_QUESTIONS_MS);
    if (g_get_monotonic_time() >= self->deadline) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT,
                    "the VM's QEMU takes too long to answer (%s)", command);
        return NULL;
    }
    question = question_new(&self->guest, self->agent, g_steal_pointer(&line));
    memcpy(key.uuid, self->guest.uuid, sizeof key.uuid);
    lanes_post(self->agent->lanes, &key, run_question, drop_question, question);
    answer = wait_answer(question, MIN(timed_deadline(GUEST_QUESTION_MS), self->deadline), error);
    question_unref(question);
    return answer ? parse_answer(answer, error) : NULL;
}

/* The pid file is read again once the pidfd is there: until then the pid could become another's. */
static int open_process(const Guest *guest, int *ret_pid, char *ret_text)
{
    g_autoptr(GError) error = NULL;
    const char *folder = libvirt_run_folder();
    int pidfd = -1;

    *ret_pid = (int)libvirt_pid(folder, guest->name, &error);
    if (*ret_pid > 0)
        pidfd = (int)syscall(SYS_pidfd_open, *ret_pid, 0);
    if (pidfd >= 0 && !process_has_ended(pidfd) &&
        libvirt_pid(folder, guest->name, NULL) == *ret_pid)
        return pidfd;
    if (pidfd >= 0)
        close(pidfd);
    g_strlcpy(ret_text,
              error ? error->message : "the process that libvirt started for it has ended",
              LIMIT_TEXT + 1);
    return -ESRCH;
}

static void close_guest(Guest *guest)
{
    g_free(guest); /* it is a DomainGuest's first member */
}

/* From memory alone: whoever reaches our port can make us do this. */
static int open_guest(void *user, const guint8 *uuid, Guest **ret_guest, char *ret_text)
{
    Agent *agent = user;
    const AgentDomain *known;
    DomainGuest *self = NULL;

    ret_text[0] = '\0';
    pthread_mutex_lock(&agent->lock);
    known = agent_domain(agent, uuid);
    if (known && known->enabled && known->has_token) {
        self = g_new0(DomainGuest, 1);
        memcpy(self->guest.uuid, uuid, LIMIT_UUID);
        memcpy(self->guest.token, known->token, LIMIT_TOKEN);
        memcpy(self->guest.name, known->name, sizeof known->name);
        self->guest.has_token = TRUE;
    }
    pthread_mutex_unlock(&agent->lock);
    if (!self)
        return -ENOENT;
    self->agent = agent;
    self->guest.monitor = (Monitor){.call = call_in_time, .user = self};
    self->guest.open_process = open_process;
    self->guest.close = close_guest;
    *ret_guest = &self->guest;
    return 0;
}

GuestProvider agent_provider(Agent *agent)
{
    return (GuestProvider){.open = open_guest, .user = agent};
}
