/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The only program of the Linux guest (README.md): it loads the balloon's driver, fills memory,
 * frees a part of it for the balloon, and from then on rewrites the rest and looks at every word.
 * When the balloon has taken memory and given it back, the freed part is filled once more.  It says
 * how it goes in records like those of the other guest.
 *
 * One thread.  There is no file system but the initramfs, and nothing to return to.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#define WORD_STEP   UINT64_C(0x9e3779b97f4a7c15)
#define TICK_NS     INT64_C(100000000)
#define BAD_RECORDS 8

enum { PAGE = 4096, PAGE_WORDS = PAGE / 8, MEBI = 1 << 20 };

typedef struct Arena {
    uint64_t *words;
    size_t pages;
    uint64_t round; /* of the pattern: every rewrite of all of it has another */
} Arena;

typedef struct Guest {
    Arena kept, freed;
    uint64_t whole_mb; /* RAM without a balloon */
    uint64_t freed_mb;
    uint64_t words, bad, passes;
    bool was_taken, refilled;
    int64_t next_tick;
} Guest;

static void __attribute__((noreturn, format(printf, 1, 2))) fatal(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    printf("FATAL why=");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    for (;;)
        pause();
}

/* The build puts them here in the order in which they can be loaded. */
static void load_modules(void)
{
    char path[32];

    for (int i = 0;; i++) {
        int fd;

        snprintf(path, sizeof path, "/module%d", i);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            break;
        if (syscall(SYS_finit_module, fd, "", 0) != 0)
            fatal("%s_cannot_be_loaded", path + 1);
        close(fd);
        unlink(path);
    }
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* RAM that the kernel manages: what the balloon has is not in it. */
static uint64_t managed_mb(void)
{
    struct sysinfo info;

    if (sysinfo(&info) != 0)
        fatal("no_sysinfo");
    return (uint64_t)info.totalram * info.mem_unit / MEBI;
}

static uint64_t pattern(const Arena *arena, const uint64_t *word)
{
    return ((uint64_t)(uintptr_t)word + arena->round) * WORD_STEP;
}

static void write_page(const Arena *arena, size_t page)
{
    uint64_t *word = arena->words + page * PAGE_WORDS;

    for (size_t i = 0; i < PAGE_WORDS; i++, word++)
        *word = pattern(arena, word);
}

static void check_page(Guest *guest, const Arena *arena, size_t page)
{
    const uint64_t *word = arena->words + page * PAGE_WORDS;

    for (size_t i = 0; i < PAGE_WORDS; i++, word++) {
        uint64_t found = *(const volatile uint64_t *)word;

        if (found == pattern(arena, word))
            continue;
        if (guest->bad++ < BAD_RECORDS)
            printf("BAD page=%zu word=%zu found=0x%llx\n", page, i, (unsigned long long)found);
    }
    guest->words += PAGE_WORDS;
}

static void arena_fill(Arena *arena, size_t mib)
{
    arena->pages = mib * (MEBI / PAGE);
    arena->words =
        mmap(NULL, arena->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena->words == MAP_FAILED)
        fatal("no_memory");
    arena->round++;
    for (size_t page = 0; page < arena->pages; page++)
        write_page(arena, page);
}

static void arena_free(Arena *arena)
{
    munmap(arena->words, arena->pages * PAGE);
    arena->pages = 0;
}

/* Notes whether the balloon ever had what is half of the freed part. */
static void tick(Guest *guest)
{
    uint64_t managed = managed_mb();

    if (guest->whole_mb - managed >= guest->freed_mb / 2)
        guest->was_taken = true;
    printf("TICK epoch=0 passes=%llu words=%llu bad=%llu managed_mb=%llu taken=%d refilled=%d\n",
           (unsigned long long)guest->passes, (unsigned long long)guest->words,
           (unsigned long long)guest->bad, (unsigned long long)managed, guest->was_taken,
           guest->refilled);
}

static void tick_if_due(Guest *guest)
{
    int64_t now = now_ns();

    if (now < guest->next_tick)
        return;
    guest->next_tick = now + TICK_NS;
    tick(guest);
}

/* Looks at every word of an arena, and gives every page the pattern of the next round. */
static void pass_over(Guest *guest, Arena *arena)
{
    for (size_t page = 0; page < arena->pages; page++) {
        check_page(guest, arena, page);
        arena->round++;
        write_page(arena, page);
        arena->round--;
        tick_if_due(guest);
    }
    arena->round++;
}

/* The freed part is filled again after the balloon has had memory and has given it back. */
static void follow_balloon(Guest *guest)
{
    if (!guest->was_taken || guest->refilled || managed_mb() < guest->whole_mb)
        return;
    arena_fill(&guest->freed, guest->freed_mb);
    guest->refilled = true;
}

/* What the kernel does not know, it hands to init as a variable. */
static size_t wanted_mb(const char *name)
{
    const char *text = getenv(name);
    size_t mib = text ? strtoul(text, NULL, 10) : 0;

    if (!mib)
        fatal("no_%s", name);
    return mib;
}

int main(void)
{
    static Guest guest;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    load_modules();
    guest.whole_mb = managed_mb();
    guest.freed_mb = wanted_mb("freed_mb");
    arena_fill(&guest.kept, wanted_mb("kept_mb"));
    arena_fill(&guest.freed, guest.freed_mb);
    arena_free(&guest.freed);
    printf("READY\n");
    for (;;) {
        pass_over(&guest, &guest.kept);
        pass_over(&guest, &guest.freed);
        guest.passes++;
        follow_balloon(&guest);
    }
}
