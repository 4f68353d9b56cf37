/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/source_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/source/server.h"
#include "tests/unit/core_regions.h"

Reader reader;

static void ignore(void *owner, Export *of, ExportEvent event)
{
    (void)owner;
    (void)of;
    (void)event;
}

static void *run(void *argument)
{
    (void)argument;
    reader.link.fd = reader.pair[1];
    reader.link.session = SESSION;
    reader.link.generation = GENERATION;
    server_run(reader.export, &reader.channel, &reader.link);
    shutdown(reader.pair[1], SHUT_RDWR);
    return NULL;
}

uint8_t reader_byte(uint64_t page, size_t at)
{
    return (uint8_t)(page * 11 + at * 3 + (at >> 12) + 1);
}

/* Odd pages have content: every page is another run. */
static void fill_ram(void)
{
    static uint8_t page[PAGE];

    for (uint64_t i = 1; i < PAGES; i += 2) {
        for (size_t at = 0; at < PAGE; at++)
            page[at] = reader_byte(i, at);
        assert_int_equal(pwrite(reader.ram[0], page, PAGE, (off_t)(i * PAGE)), PAGE);
    }
    for (uint32_t i = 0; i < ALIEN_PAGES; i++)
        memset(reader.alien + i * PAGE, (int)(i + 1), PAGE);
    for (size_t at = 0; at < HUGE_PAGE; at += PAGE) {
        for (size_t i = 0; i < PAGE; i++)
            page[i] = reader_byte(1, at + i);
        assert_int_equal(pwrite(reader.ram[1], page, PAGE, (off_t)(HUGE_PAGE + at)), PAGE);
    }
}

int reader_set_up(void **state)
{
    struct timeval patience = {.tv_sec = 20};
    uint8_t uuid[LIMIT_UUID] = {1};
    RegionSet regions = {0};
    int error;

    (void)state;
    reader.ram[0] = memfd_create("ram", MFD_CLOEXEC);
    reader.ram[1] = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(reader.ram[0], PAGES * PAGE), 0);
    assert_int_equal(ftruncate(reader.ram[1], HUGE_PAGES * HUGE_PAGE), 0);
    reader.alien =
        mmap(NULL, ALIEN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(reader.alien != MAP_FAILED);
    fill_ram();
    add_region(&regions, PAGES, PAGE, reader.ram[0]);
    add_region(&regions, HUGE_PAGES, HUGE_PAGE, reader.ram[1]);
    add_region(&regions, ALIEN_PAGES, PAGE, -1)->address = (uintptr_t)reader.alien;
    reader.export = export_new(uuid, "guest", getpid(), &regions, ignore, NULL, &error);
    assert_non_null(reader.export);
    reader.channel = (ExportChannel){
        .kind = reader.bulk ? PEER_CHANNEL_BULK : PEER_CHANNEL_URGENT,
    };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, reader.pair), 0);
    setsockopt(reader.pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return pthread_create(&reader.thread, NULL, run, NULL);
}

int reader_tear_down(void **state)
{
    (void)state;
    shutdown(reader.pair[0], SHUT_RDWR);
    pthread_join(reader.thread, NULL);
    close(reader.pair[0]);
    close(reader.pair[1]);
    close(reader.ram[0]);
    close(reader.ram[1]);
    munmap(reader.alien, ALIEN_PAGES * PAGE);
    export_close(reader.export);
    export_unref(reader.export);
    return 0;
}

/* --- the destination ----------------------------------------------------------------------- */

void reader_send(size_t length)
{
    assert_int_equal(send(reader.pair[0], reader.frame, length, MSG_NOSIGNAL), length);
}

void reader_ask(const PeerReadItem *items, uint32_t n)
{
    ssize_t length =
        peer_read_encode(SESSION, GENERATION, items, n, reader.frame, sizeof reader.frame);

    assert_true(length > 0);
    reader_send((size_t)length);
}

void reader_receive(void *bytes, size_t length)
{
    if (length > 0)
        assert_int_equal(recv(reader.pair[0], bytes, length, MSG_WAITALL), length);
}

void reader_take(uint64_t page_size)
{
    uint8_t body[PEER_PLACEMENT_SIZE];

    reader_receive(reader.frame, PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(reader.frame, &reader.header), 0);
    assert_int_equal(reader.header.session, SESSION);
    assert_int_equal(reader.header.generation, GENERATION);
    reader_receive(body, sizeof body);
    assert_int_equal(peer_placement_decode(&reader.header, body, &reader.placement), 0);
    uint64_t length = reader.header.length - PEER_PLACEMENT_SIZE;
    assert_int_equal(length,
                     reader.header.type == PEER_DATA ? reader.placement.count * page_size : 0);
    assert_true((reader.placement.first + reader.placement.count) * page_size <=
                    sizeof reader.got ||
                reader.header.type == PEER_ERROR);
    reader_receive(reader.got + reader.placement.first * page_size, length);
    if (reader.header.type == PEER_ZERO)
        memset(reader.got + reader.placement.first * page_size, 0,
               reader.placement.count * page_size);
}

void reader_assert_error(PeerErrorCode code)
{
    reader_take(PAGE);
    assert_int_equal(reader.header.type, PEER_ERROR);
    assert_int_equal(reader.placement.code, code);
}

void reader_assert_pages(uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (size_t at = 0; at < PAGE; at++)
            if (reader.got[i * PAGE + at] != ((first + i) % 2 ? reader_byte(first + i, at) : 0))
                fail_msg("page %llu, byte %zu", (unsigned long long)(first + i), at);
}

unsigned reader_take_item(const PeerReadItem *item)
{
    unsigned frames = 0;

    memset(reader.got, 0xee, (size_t)item->count * PAGE);
    for (uint32_t done = 0; done < item->count; done += reader.placement.count, frames++) {
        reader_take(PAGE);
        assert_int_not_equal(reader.header.type, PEER_ERROR);
        assert_int_equal(reader.header.cookie, item->cookie);
        assert_int_equal(reader.placement.first, done);
        assert_true(reader.placement.count > 0 && reader.placement.count <= item->count - done);
    }
    reader_assert_pages(item->page, item->count);
    return frames;
}

void reader_assert_answer(PeerMessageType type, uint32_t first, uint32_t count)
{
    reader_take(PAGE);
    assert_int_equal(reader.header.type, type);
    assert_int_equal(reader.placement.first, first);
    assert_int_equal(reader.placement.count, count);
    assert_int_equal(reader.placement.code, type == PEER_ERROR ? PEER_ERROR_IO : PEER_ERROR_NONE);
}
