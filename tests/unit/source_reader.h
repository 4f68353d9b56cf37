/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A destination that reads an export over a data channel, for tests. */
#ifndef POSTCOPYD_TESTS_SOURCE_READER_H
#define POSTCOPYD_TESTS_SOURCE_READER_H

#include <pthread.h>

#include "daemon/source/server.h"

enum {
    PAGE = 4096,
    PAGES = 2000,
    HUGE_PAGE = 2 << 20,
    HUGE_PAGES = 3,
    ALIEN_PAGES = 200,
    SESSION = 4,
    GENERATION = 2,
};

/* An export of three regions, served by a thread; set up for each test. */
typedef struct Reader {
    Export *export;
    ExportChannel channel;
    bool bulk; /* what the channel is; as the link's features, set before the set-up */
    ServerLink link;
    int ram[2];     /* of regions 0 and 1; of 0 the odd pages have content, of 1 the page 1 */
    int pair[2];    /* the connection; 0 is the destination's end */
    uint8_t *alien; /* region 2: read through its process, which is this one; full */
    pthread_t thread;
    PeerHeader header; /* of the last answer */
    PeerPlacement placement;
    uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX];
    uint8_t got[PEER_READ_MAX]; /* the pages of an item */
} Reader;

extern Reader reader;

int reader_set_up(void **state);
int reader_tear_down(void **state);

/* What regions 0 and 1 hold where they have content. */
uint8_t reader_byte(uint64_t page, size_t at);

/* Sends so many bytes of frame[]. */
void reader_send(size_t length);
void reader_receive(void *bytes, size_t length);
void reader_ask(const PeerReadItem *items, uint32_t n);

/* The next answer to a READ, its pages in got[], from where they belong in the item. */
void reader_take(uint64_t page_size);

/* All answers to one item of region 0, which have to be right; how many frames they were. */
unsigned reader_take_item(const PeerReadItem *item);

/* got[] starts with these pages of region 0. */
void reader_assert_pages(uint64_t first, uint32_t count);

/* The next answer refuses its item. */
void reader_assert_error(PeerErrorCode code);

/* The next answer speaks of these pages of its item; an ERROR is one of reading. */
void reader_assert_answer(PeerMessageType type, uint32_t first, uint32_t count);

#endif
