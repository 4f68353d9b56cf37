/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small VMM against libpostcopy, for tests with real daemons.
 *
 *   vmm source|destination --socket PATH --name NAME --mem MIB --fill MIB
 *       [--backing anonymous|memfd|unsealed|private|hugetlb|file:PATH] [--regions N] [--threads N]
 *       [--zeroed MIB] [--uuid 16CHARACTERS] [--seed N] [--sparse] [--read-only] [--reverse] [--removable] [--pause US]
 *       [--pluggable] [--absent] [--churn] [--destination HOST:PORT]
 *
 * --reverse names the regions in the opposite order; --zeroed writes zeroes to so much of what has no content.
 *
 * It prints "READY pid" when the daemon has welcomed it, and "EVENT name …" whenever the library
 * tells of one.  Each line on stdin is a command, answered by "OK command" or "ERR command reason":
 *
 *   offer [HOST:PORT]  seal  cancel  running     the library's calls
 *   run    wait for RUNNING, start the guest: threads that verify all memory, pass after pass, each
 *          pass with a line "VERIFIED words=… bad=… …", and wrong words with "BAD …"
 *   guest  the same without a word to the daemon: the stream does not start because of it
 *   stop   end the guest's threads
 *   probe N [CPU,…]  run threads that touch pages of their own, thread i (i + 1) * N of them, and print
 *          "PROBED vcpu=… tid=… pages=… bad=…" each; on the CPUs named, in turn
 *   touch WORDS   wait for RUNNING, touch pages and time it: a line "TOUCHED {…}" (vmm_touch.h)
 *   zero   check that all memory reads as zero
 *   vcpu   name this thread as the only vCPU, until run or touch names others
 *   discard N    give N runs of pages of the last region back (--removable), and check it
 *   blindly N    the same without a look at any page
 *   plug, unplug     add, remove the last region (--pluggable; it is not there at first with --absent)
 *   check        check all of it, while it is plugged in
 *   faults       threads touch every page with content of the other regions once, while a further
 *          one plugs the last region in and out (--churn): a line "FAULTED pages=… us=…
 *          per_second=… changes=… bad=…"
 *   add MIB, remove    one more region, of anonymous memory
 *   churn  remove and add the last region over and over (--pluggable), until
 *   calm   which tells how often: a line "CHURNED n"
 *   quit   (or the end of stdin) exit: 1 if a word was ever wrong
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/lib/postcopy.h"
#include "tests/integration/vmm_churn.h"
#include "tests/integration/vmm_discard.h"
#include "tests/integration/vmm_load.h"
#include "tests/integration/vmm_memory.h"
#include "tests/integration/vmm_plug.h"
#include "tests/integration/vmm_probe.h"
#include "tests/integration/vmm_touch.h"

enum { CONNECT_MS = 20000, CALL_MS = 60000, RUN_MS = 120000, SPARSE_HOLES = 4096 };

typedef struct Vmm {
    enum postcopy_role role;
    const char *socket_path;
    const char *name;
    const char *uuid; /* 16 characters, taken as they are */
    const char *destination;
    VmmShape shape;
    uint64_t n_zeroed; /* pages, at the source */
    unsigned n_threads;
    bool sparse;
    bool read_only;
    bool reverse;
    unsigned pause_us;
    VmmMemory memory;
    struct postcopy_region extra; /* as added by command; no address: none */
    postcopy *pc;
    VmmLoad *load;
    VmmDiscard *discard;
    VmmChurn *churn;
    VmmPlug *plug;
    bool plugging;
    uint64_t bad;
} Vmm;

/* A line is one write: the library's thread and the guest's print too. */
static void __attribute__((format(printf, 1, 2))) print(const char *format, ...)
{
    char line[2048];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof line)
        length = sizeof line - 1;
    if (write(STDOUT_FILENO, line, (size_t)length) < 0)
        _exit(2);
}

static const char *event_name(int event)
{
    static const char *const names[] = {
        [POSTCOPY_ARMED] = "armed",         [POSTCOPY_RUNNING] = "running",
        [POSTCOPY_PAUSED] = "paused",       [POSTCOPY_RELEASED] = "released",
        [POSTCOPY_CANCELLED] = "cancelled", [POSTCOPY_FENCED] = "fenced",
        [POSTCOPY_BROKEN] = "broken",       [POSTCOPY_EXPORTED] = "exported",
        [POSTCOPY_SEALED] = "sealed",       [POSTCOPY_DONE] = "done",
        [POSTCOPY_CONNECTED] = "connected", [POSTCOPY_DISCONNECTED] = "disconnected",
    };

    return names[event];
}

static void notify(void *user, const struct postcopy_notification *n)
{
    (void)user;
    print("EVENT %s populated=%" PRIu64 " present=%" PRIu64 " faults=%" PRIu64 " %s\n",
          event_name((int)n->event), n->populated_bytes, n->present_bytes, n->faults, n->text);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: vmm source|destination --socket PATH --name NAME --mem MIB "
            "--fill MIB [--zeroed MIB] [--backing KIND] [--regions N] [--threads N] [--seed N] "
            "[--sparse] [--read-only] [--reverse] [--removable] [--pause US] "
            "[--pluggable] [--absent] [--churn] [--destination HOST:PORT]\n");
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);

    if (end == text || *end)
        usage();
    return value;
}

static void parse_option(Vmm *vmm, int option)
{
    switch (option) {
    case 's':
        vmm->socket_path = optarg;
        break;
    case 'n':
        vmm->name = optarg;
        break;
    case 'U':
        if (strlen(optarg) != sizeof((struct postcopy_config *)NULL)->uuid)
            usage();
        vmm->uuid = optarg;
        break;
    case 'm':
        vmm->shape.n_pages = number(optarg) * (1 << 20) / VMM_PAGE;
        break;
    case 'f':
        vmm->shape.n_filled = number(optarg) * (1 << 20) / VMM_PAGE;
        break;
    case 'z':
        vmm->n_zeroed = number(optarg) * (1 << 20) / VMM_PAGE;
        break;
    case 'b':
        vmm->shape.backing = optarg;
        break;
    case 'r':
        vmm->shape.n_regions = (unsigned)number(optarg);
        break;
    case 't':
        vmm->n_threads = (unsigned)number(optarg);
        break;
    case 'x':
        vmm->shape.seed = number(optarg);
        break;
    case 'd':
        vmm->destination = optarg;
        break;
    case 'S':
        vmm->sparse = true;
        break;
    case 'R':
        vmm->read_only = true;
        break;
    case 'B':
        vmm->shape.removable = true;
        break;
    case 'P':
        vmm->shape.pluggable = true;
        break;
    case 'A':
        vmm->shape.absent = true;
        break;
    case 'C':
        vmm->plugging = true;
        break;
    case 'p':
        vmm->pause_us = (unsigned)number(optarg);
        break;
    case 'v':
        vmm->reverse = true;
        break;
    default:
        usage();
    }
}

static void parse(Vmm *vmm, int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},
        {"name", required_argument, NULL, 'n'},
        {"uuid", required_argument, NULL, 'U'},
        {"mem", required_argument, NULL, 'm'},
        {"fill", required_argument, NULL, 'f'},
        {"zeroed", required_argument, NULL, 'z'},
        {"backing", required_argument, NULL, 'b'},
        {"regions", required_argument, NULL, 'r'},
        {"threads", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 'x'},
        {"sparse", no_argument, NULL, 'S'},
        {"read-only", no_argument, NULL, 'R'},
        {"pause", required_argument, NULL, 'p'},
        {"reverse", no_argument, NULL, 'v'},
        {"removable", no_argument, NULL, 'B'},
        {"pluggable", no_argument, NULL, 'P'},
        {"absent", no_argument, NULL, 'A'},
        {"churn", no_argument, NULL, 'C'},
        {"destination", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        parse_option(vmm, option);
    if (optind != argc - 1 || !vmm->name || !vmm->shape.n_pages || !vmm->shape.n_filled ||
        vmm->n_zeroed > vmm->shape.n_pages - vmm->shape.n_filled || vmm->n_threads < 1 ||
        vmm->n_threads > VMM_THREADS || vmm->shape.n_regions < 1 ||
        vmm->shape.n_regions > VMM_REGIONS)
        usage();
    if (strcmp(argv[optind], "source") == 0)
        vmm->role = POSTCOPY_SOURCE;
    else if (strcmp(argv[optind], "destination") == 0)
        vmm->role = POSTCOPY_DESTINATION;
    else
        usage();
}

static bool connect_daemon(Vmm *vmm)
{
    struct postcopy_region regions[VMM_REGIONS];
    unsigned n = vmm->shape.n_regions;
    struct postcopy_config config = {
        .size = sizeof config,
        .socket = vmm->socket_path,
        .role = vmm->role,
        .name = vmm->name,
        .regions = regions,
        .n_regions = n,
        .notify = notify,
        .user = vmm,
    };

    if (vmm->uuid)
        memcpy(config.uuid, vmm->uuid, sizeof config.uuid);
    for (unsigned i = 0; i < n; i++)
        regions[i] = vmm->memory.regions[vmm->reverse ? n - 1 - i : i];
    if (vmm->shape.absent) {
        struct postcopy_region *last = &regions[vmm->reverse ? 0 : n - 1];
        last->flags |= POSTCOPY_REGION_ABSENT;
        last->address = NULL;
        last->fd = -1;
        last->fd_offset = 0;
    }
    if (postcopy_connect(&config, POSTCOPY_WAIT, CONNECT_MS, &vmm->pc)) {
        print("ERR connect %s\n", postcopy_error(NULL));
        return false;
    }
    print("READY %d\n", (int)getpid());
    return true;
}

static void answer(const Vmm *vmm, const char *command, int status)
{
    if (status < 0)
        print("ERR %s %s\n", command, postcopy_error(vmm->pc));
    else
        print("OK %s\n", command);
}

static void run_guest(Vmm *vmm, const char *command)
{
    uint32_t tids[VMM_THREADS];
    int event = vmm->role == POSTCOPY_SOURCE ? POSTCOPY_RUNNING
                                             : postcopy_wait(vmm->pc, POSTCOPY_RUNNING, RUN_MS);

    if (event != POSTCOPY_RUNNING && event != POSTCOPY_RELEASED) {
        print("ERR %s %s\n", command, event < 0 ? postcopy_error(vmm->pc) : event_name(event));
        return;
    }
    if (vmm->load) {
        print("ERR %s it runs\n", command);
        return;
    }
    vmm->load = vmm_load_start(&vmm->memory, vmm->n_threads, vmm->sparse ? SPARSE_HOLES : 0,
                               !vmm->read_only, vmm->pause_us, print);
    vmm_load_tids(vmm->load, tids);
    int error = postcopy_set_vcpus(vmm->pc, tids, vmm->n_threads);
    if (!error && strcmp(command, "run") == 0)
        error = postcopy_running(vmm->pc, CALL_MS);
    answer(vmm, command, error);
}

static void tell_vcpus(void *user, const uint32_t *tids, unsigned n)
{
    Vmm *vmm = user;

    if (postcopy_set_vcpus(vmm->pc, tids, n))
        print("ERR set_vcpus %s\n", postcopy_error(vmm->pc));
}

static void probe_guest(Vmm *vmm, const char *argument)
{
    char step[32] = "", cpus[256] = "";
    int event = postcopy_wait(vmm->pc, POSTCOPY_RUNNING, RUN_MS);
    VmmProbe probe = {
        .memory = &vmm->memory,
        .n_threads = vmm->n_threads,
        .cpus = cpus,
        .tell = tell_vcpus,
        .user = vmm,
        .print = print,
    };

    sscanf(argument, "%31s %255s", step, cpus);
    probe.step = number(step);
    if (event != POSTCOPY_RUNNING)
        print("ERR probe %s\n", event < 0 ? postcopy_error(vmm->pc) : event_name(event));
    else if (!vmm_probe(&probe))
        print("ERR probe not so many pages, or no such CPU\n");
    else
        print("OK probe\n");
}

static void stop_guest(Vmm *vmm)
{
    if (vmm->load)
        vmm->bad += vmm_load_stop(vmm->load);
    vmm->load = NULL;
}

/* The background stream may go only if a driver said so: "running" is a command of its own. */
static void touch(Vmm *vmm, char *words)
{
    TouchPlan plan;
    TouchResult result;
    char text[1024];
    const char *problem = vmm_touch_plan(&vmm->memory, words, &plan);
    int event = problem ? 0 : postcopy_wait(vmm->pc, POSTCOPY_RUNNING, RUN_MS);

    if (problem || (event != POSTCOPY_RUNNING && event != POSTCOPY_RELEASED)) {
        print("ERR touch %s\n", problem     ? problem
                                : event < 0 ? postcopy_error(vmm->pc)
                                            : event_name(event));
        return;
    }
    plan.started = tell_vcpus;
    plan.started_owner = vmm;
    touch_run(&plan, &result);
    touch_format(&result, text, sizeof text);
    print("TOUCHED %s\n", text);
    answer(vmm, "touch", 0);
}

/* Every word of the memory, which nobody may fill meanwhile. */
static void check_zero(const Vmm *vmm)
{
    uint64_t wrong = 0;

    for (uint64_t page = 0; page < vmm->shape.n_pages; page++) {
        const uint64_t *words = vmm_memory_words(&vmm->memory, page);
        for (unsigned i = 0; i < VMM_WORDS; i++)
            wrong += words[i] != 0;
    }
    if (wrong)
        print("ERR zero %" PRIu64 " words are not\n", wrong);
    else
        print("OK zero\n");
}

static void add_region(Vmm *vmm, const char *mib)
{
    struct postcopy_region region = {
        .id = "extra",
        .guest_address = UINT64_C(1) << 45,
        .length = number(mib) << 20,
        .page_size = VMM_PAGE,
        .backing = POSTCOPY_ANONYMOUS,
        .fd = -1,
    };

    region.address = mmap(NULL, region.length, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region.address == MAP_FAILED)
        exit(2);
    int error = postcopy_add_region(vmm->pc, &region);
    if (error)
        munmap(region.address, region.length);
    else
        vmm->extra = region;
    answer(vmm, "add", error);
}

static void remove_region(Vmm *vmm)
{
    int error = postcopy_remove_region(vmm->pc, vmm->extra.address);

    if (!error) {
        munmap(vmm->extra.address, vmm->extra.length);
        vmm->extra = (struct postcopy_region){0};
    }
    answer(vmm, "remove", error);
}

static VmmDiscard *discarder(Vmm *vmm)
{
    if (!vmm->discard)
        vmm->discard = vmm_discard_new(&vmm->memory, print);
    return vmm->discard;
}

static VmmPlug *plug_of(Vmm *vmm)
{
    if (!vmm->plug)
        vmm->plug = vmm_plug_new(&vmm->memory, vmm->pc, print);
    return vmm->plug;
}

static void start_churn(Vmm *vmm)
{
    if (vmm->churn)
        return;
    vmm->churn = vmm_churn_start(plug_of(vmm));
    answer(vmm, "churn", vmm->churn ? 0 : -1);
}

static void stop_churn(Vmm *vmm)
{
    if (!vmm->churn)
        return;
    int64_t rounds = vmm_churn_stop(vmm->churn);
    vmm->churn = NULL;
    print("CHURNED %" PRId64 "\n", rounds);
    print(rounds < 0 ? "ERR calm a region was refused\n" : "OK calm\n");
}

/* True: it was a command about memory that is plugged. */
static bool execute_plug(Vmm *vmm, const char *command)
{
    uint64_t wrong;

    if (strcmp(command, "plug") == 0) {
        answer(vmm, command, vmm_plug_in(plug_of(vmm)));
        return true;
    }
    if (strcmp(command, "unplug") == 0) {
        answer(vmm, command, vmm_plug_out(plug_of(vmm)));
        return true;
    }
    if (strcmp(command, "check") == 0)
        wrong = vmm_plug_check(plug_of(vmm));
    else if (strcmp(command, "faults") == 0)
        wrong = vmm_plug_run(plug_of(vmm), vmm->n_threads, vmm->plugging);
    else
        return false;
    vmm->bad += wrong;
    if (wrong)
        print("ERR %s %" PRIu64 " words or changes are wrong\n", command, wrong);
    else
        print("OK %s\n", command);
    return true;
}

/* False to quit. */
static bool execute(Vmm *vmm, const char *command, char *argument)
{
    if (strcmp(command, "offer") == 0) {
        answer(vmm, command,
               postcopy_offer(vmm->pc, *argument ? argument : vmm->destination, CALL_MS));
    } else if (strcmp(command, "seal") == 0) {
        answer(vmm, command, postcopy_seal(vmm->pc, CALL_MS));
    } else if (strcmp(command, "cancel") == 0) {
        answer(vmm, command, postcopy_cancel(vmm->pc, CALL_MS));
    } else if (strcmp(command, "running") == 0) {
        answer(vmm, command, postcopy_running(vmm->pc, CALL_MS));
    } else if (strcmp(command, "run") == 0 || strcmp(command, "guest") == 0) {
        run_guest(vmm, command);
    } else if (strcmp(command, "stop") == 0) {
        stop_guest(vmm);
        print("OK stop\n");
    } else if (strcmp(command, "probe") == 0) {
        probe_guest(vmm, argument);
    } else if (strcmp(command, "touch") == 0) {
        touch(vmm, argument);
    } else if (strcmp(command, "vcpu") == 0) {
        const uint32_t tid = (uint32_t)gettid();
        answer(vmm, command, postcopy_set_vcpus(vmm->pc, &tid, 1));
    } else if (strcmp(command, "zero") == 0) {
        check_zero(vmm);
    } else if (strcmp(command, "discard") == 0) {
        uint64_t wrong = vmm_discard(discarder(vmm), number(argument));
        vmm->bad += wrong;
        print(wrong ? "ERR discard %" PRIu64 " words are wrong\n" : "OK discard\n", wrong);
    } else if (strcmp(command, "blindly") == 0) {
        vmm_discard_blindly(discarder(vmm), number(argument));
        print("OK blindly\n");
    } else if (strcmp(command, "add") == 0) {
        add_region(vmm, argument);
    } else if (strcmp(command, "remove") == 0) {
        remove_region(vmm);
    } else if (strcmp(command, "churn") == 0) {
        start_churn(vmm);
    } else if (strcmp(command, "calm") == 0) {
        stop_churn(vmm);
    } else if (strcmp(command, "quit") == 0) {
        return false;
    } else if (!execute_plug(vmm, command)) {
        print("ERR %s is no command\n", command);
    }
    return true;
}

static void obey(Vmm *vmm)
{
    char line[1024], command[64], argument[512];

    while (fgets(line, sizeof line, stdin)) {
        command[0] = argument[0] = '\0';
        if (sscanf(line, "%63s %511[^\n]", command, argument) < 1)
            continue;
        if (!execute(vmm, command, argument))
            return;
    }
}

int main(int argc, char **argv)
{
    static Vmm vmm = {.shape = {.seed = 1, .n_regions = 1, .backing = "memfd"}, .n_threads = 2};

    parse(&vmm, argc, argv);
    if (!vmm_memory_init(&vmm.memory, &vmm.shape))
        return 2;
    if (vmm.role == POSTCOPY_SOURCE)
        vmm_memory_fill(&vmm.memory, vmm.n_zeroed);
    if (!connect_daemon(&vmm))
        return 2;
    obey(&vmm);
    stop_churn(&vmm);
    /* Threads may wait for memory that never comes; leaving must not wait for them. */
    if (postcopy_free(vmm.pc) < 0) {
        print("LEAVING armed\n");
        _exit(vmm.bad != 0 || (vmm.load && vmm_load_bad(vmm.load) != 0));
    }
    stop_guest(&vmm);
    vmm_plug_free(vmm.plug);
    vmm_memory_deinit(&vmm.memory);
    return vmm.bad != 0;
}
