/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into a daemon: real errors of a device, when a test asks for them by making a file in the
 * folder that VERBS_TROUBLE names.
 *
 *   keys   holds a number: so many of the next registrations that others may READ tell a wrong key
 *   break  every queue pair that works is put into its error state, and the file is removed
 *   mute   of the devices that are open no completion is told any more, and the file is removed
 *
 * Nothing else is changed: what follows from it is the device's and the daemon's doing.
 */
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#undef ibv_reg_mr

enum { PAIRS = 256, LOOK_US = 5000, WRONG = 0x55 };

typedef struct ibv_mr *(*RegMr)(struct ibv_pd *, void *, size_t, int);
typedef struct ibv_mr *(*RegMrIova)(struct ibv_pd *, void *, size_t, uint64_t, unsigned);
typedef int (*ModifyQp)(struct ibv_qp *, struct ibv_qp_attr *, int);
typedef int (*DestroyQp)(struct ibv_qp *);

/* One of these functions calls the other. */
static __thread int depth;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ibv_qp *pairs[PAIRS];

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found) {
        fprintf(stderr, "verbs_trouble: no %s\n", name);
        abort();
    }
    return found;
}

static const char *path_of(const char *name, char *ret_path, size_t size)
{
    const char *folder = getenv("VERBS_TROUBLE");

    snprintf(ret_path, size, "%s/%s", folder ? folder : "/nonexistent", name);
    return ret_path;
}

/* Takes one of the keys that are to be wrong. */
static int key_is_wrong(void)
{
    char path[4096];
    int left = 0;

    pthread_mutex_lock(&lock);
    FILE *file = fopen(path_of("keys", path, sizeof path), "r+");
    if (file && fscanf(file, "%d", &left) == 1 && left > 0) {
        rewind(file);
        fprintf(file, "%d\n", left - 1);
    }
    if (file)
        fclose(file);
    pthread_mutex_unlock(&lock);
    return left > 0;
}

static struct ibv_mr *spoiled(struct ibv_mr *mr, unsigned access)
{
    if (mr && !depth && (access & IBV_ACCESS_REMOTE_READ) && key_is_wrong())
        mr->rkey ^= WRONG;
    return mr;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *memory, size_t length, int access)
{
    depth++;
    struct ibv_mr *mr = ((RegMr)next("ibv_reg_mr"))(pd, memory, length, access);
    depth--;
    return spoiled(mr, (unsigned)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *memory, size_t length, uint64_t iova,
                                unsigned access)
{
    depth++;
    struct ibv_mr *mr = ((RegMrIova)next("ibv_reg_mr_iova2"))(pd, memory, length, iova, access);
    depth--;
    return spoiled(mr, access);
}

static void replace(struct ibv_qp *old, struct ibv_qp *qp)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PAIRS; i++)
        if (pairs[i] == old) {
            pairs[i] = qp;
            break;
        }
    pthread_mutex_unlock(&lock);
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    int error = ((ModifyQp)next("ibv_modify_qp"))(qp, attr, mask);

    if (!error && (mask & IBV_QP_STATE) && attr->qp_state == IBV_QPS_RTS)
        replace(NULL, qp);
    return error;
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
    replace(qp, NULL);
    return ((DestroyQp)next("ibv_destroy_qp"))(qp);
}

static void break_pairs(void)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    ModifyQp call = (ModifyQp)next("ibv_modify_qp");

    pthread_mutex_lock(&lock);
    for (int i = 0; i < PAIRS; i++)
        if (pairs[i])
            call(pairs[i], &attr, IBV_QP_STATE);
    pthread_mutex_unlock(&lock);
}

static int tell_nothing(struct ibv_cq *cq, int most, struct ibv_wc *completions)
{
    (void)cq;
    (void)most;
    (void)completions;
    return 0;
}

static void mute_queues(void)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PAIRS; i++)
        if (pairs[i])
            pairs[i]->context->ops.poll_cq = tell_nothing;
    pthread_mutex_unlock(&lock);
}

/* Takes the file away, if it is there. */
static int asked_for(const char *name)
{
    char path[4096];

    return unlink(path_of(name, path, sizeof path)) == 0;
}

static void *watch(void *unused)
{
    (void)unused;
    for (;; usleep(LOOK_US)) {
        if (asked_for("break"))
            break_pairs();
        if (asked_for("mute"))
            mute_queues();
    }
    return NULL;
}

static void __attribute__((constructor)) begin(void)
{
    pthread_t thread;

    if (getenv("VERBS_TROUBLE") && pthread_create(&thread, NULL, watch, NULL) == 0)
        pthread_detach(thread);
}
