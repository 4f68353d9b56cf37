/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvirt's migration of a domain, running on a thread of its own, and what its events tell meanwhile.
 * The source's libvirtd connects to the destination's by itself (peer to peer): so the migration comes to
 * a sound end on both sides whatever becomes of us.
 */
#ifndef POSTCOPYD_CTL_LIBVIRT_JOB_H
#define POSTCOPYD_CTL_LIBVIRT_JOB_H

#include <glib.h>
#include <libvirt/libvirt.h>

typedef struct JobOptions {
    const char *uri;   /* of the destination's libvirt, as the source's reaches it */
    guint64 bandwidth; /* MiB/s, 0: libvirt's own */
    gboolean persistent;
    gboolean undefine_source;
} JobOptions;

typedef struct Job Job;

/* What is known of it by now. */
typedef struct JobNews {
    gint64 stopped_us; /* the source's guest stands still, by g_get_monotonic_time(); 0: it runs */
    gint64 resumed_us; /* the destination's guest runs */
    gboolean finished; /* libvirt's call has returned */
    gboolean done;     /* and the guest is at its destination */
    char *error;       /* else why not, NULL: it does not say; the job's */
    guint64 stream_bytes; /* that QEMU's own stream took; 0: not told */
} JobNews;

/* To be called once, before any connection to libvirt is opened. */
void job_events_init(void);

/* Watches the domain on both connections from now on. Connections must outlive the job. */
Job *job_new(virDomain *domain, virConnect *destination);

/* Ends the watching; waits for libvirt's call if it is still under way. */
void job_free(Job *job);

/* Starts the migration; options must outlive it. */
void job_start(Job *job, const JobOptions *options);

/* Readable whenever there are news. */
int job_fd(const Job *job);

/* Takes them. */
void job_news(Job *job, JobNews *ret_news);

#endif
