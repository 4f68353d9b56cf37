/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "daemon/core/log.h"

enum {
    SERVER_IN = PEER_HEADER_SIZE + PEER_CONTROL_MAX,
    SERVER_REPLIES = 256,      /* frames sent with one system call */
    SERVER_FLUSH = 256 * 1024, /* bytes after which a batch is sent */
    SERVER_REPLY_HEAD = PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE,
};

typedef struct Server {
    Export *export;
    ExportChannel *channel;
    int fd;
    uint32_t session, generation;
    PeerMessage *request;
    PeerMessage *reply;
    size_t head, tail;
    uint8_t in[SERVER_IN];
    uint8_t heads[SERVER_REPLIES][SERVER_REPLY_HEAD];
    unsigned n_heads;
    struct iovec iov[2 * SERVER_REPLIES];
    unsigned n_iov;
    uint8_t *pages; /* of the batch; PEER_READ_MAX + SERVER_FLUSH bytes, mmapped */
    size_t used;
} Server;

/* Sends the batch, whatever it takes. 0 or negative errno. */
static int flush(Server *server)
{
    struct msghdr message = {.msg_iov = server->iov, .msg_iovlen = server->n_iov};

    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(server->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -errno;
        atomic_fetch_add_explicit(&server->channel->bytes, (uint64_t)sent, memory_order_relaxed);
        atomic_fetch_add_explicit(&server->export->bytes, (uint64_t)sent, memory_order_relaxed);
        while (message.msg_iovlen > 0 && (size_t)sent >= message.msg_iov->iov_len) {
            sent -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + sent;
            message.msg_iov->iov_len -= (size_t)sent;
        }
    }
    server->n_heads = server->n_iov = 0;
    server->used = 0;
    return 0;
}

/* Appends DATA, ZERO or ERROR for pages first .. first + count of an item. 0 or negative errno. */
static int append(Server *server, PeerMessageType type, const PeerReadItem *item, uint32_t first,
                  uint32_t count, PeerErrorCode code, const void *data, size_t length)
{
    PeerMessage *m = server->reply;
    uint8_t *head = server->heads[server->n_heads];
    size_t used;
    int error;

    m->type = type;
    m->session = server->session;
    m->generation = server->generation;
    m->cookie = item->cookie;
    m->placement = (PeerPlacement){
        .seal = atomic_load_explicit(&server->export->seal, memory_order_relaxed),
        .first = first,
        .count = count,
        .code = code,
    };
    if (peer_data_encode(m, (uint32_t)length, head, SERVER_REPLY_HEAD) < 0)
        return -EPROTO;
    server->n_heads++;
    server->iov[server->n_iov++] = (struct iovec){.iov_base = head, .iov_len = SERVER_REPLY_HEAD};
    if (length > 0)
        server->iov[server->n_iov++] = (struct iovec){.iov_base = (void *)data, .iov_len = length};
    if (server->n_heads < SERVER_REPLIES)
        return 0;
    /* In the middle of an item: its pages stay where they are until all of them are sent. */
    used = server->used;
    error = flush(server);
    server->used = used;
    return error;
}

static bool is_zero(const uint8_t *page, uint64_t size)
{
    const uint64_t *words = (const void *)page;

    for (uint64_t i = 0; i < size / sizeof *words; i += 8) {
        uint64_t any = words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] |
                       words[i + 5] | words[i + 6] | words[i + 7];
        if (any)
            return false;
    }
    return true;
}

/* The pages of an item, split into runs with and without content. */
static int append_runs(Server *server, const PeerReadItem *item, const uint8_t *data,
                       uint64_t page_size)
{
    uint32_t first = 0;
    int error = 0;

    while (first < item->count && !error) {
        bool zero = is_zero(data + first * page_size, page_size);
        uint32_t count = 1;

        while (first + count < item->count &&
               is_zero(data + (first + count) * page_size, page_size) == zero)
            count++;
        if (zero) {
            atomic_fetch_add_explicit(&server->export->zero_pages, count, memory_order_relaxed);
            error = append(server, PEER_ZERO, item, first, count, PEER_ERROR_NONE, NULL, 0);
        } else {
            error = append(server, PEER_DATA, item, first, count, PEER_ERROR_NONE,
                           data + first * page_size, count * page_size);
        }
        first += count;
    }
    return error;
}

static PeerErrorCode check_item(const Server *server, const PeerReadItem *item)
{
    const RegionSet *regions = &server->export->memory.regions;
    PeerErrorCode refusal = export_refuses(server->export);
    uint64_t pages;

    if (refusal != PEER_ERROR_NONE)
        return refusal;
    if (item->region >= regions->n)
        return PEER_ERROR_RANGE;
    pages = region_pages(&regions->regions[item->region]);
    if (item->count == 0 || item->page >= pages || item->count > pages - item->page ||
        item->count > PEER_READ_MAX >> regions->regions[item->region].page_shift)
        return PEER_ERROR_RANGE;
    return PEER_ERROR_NONE;
}

static int serve_item(Server *server, const PeerReadItem *item)
{
    Export *export = server->export;
    PeerErrorCode code = check_item(server, item);
    const Region *region = &export->memory.regions.regions[item->region % LIMIT_REGIONS];
    uint8_t *data = server->pages + server->used;

    if (code == PEER_ERROR_NONE &&
        memory_read(&export->memory, item->region, item->page, item->count, data))
        code = PEER_ERROR_IO;
    /* Asked again after the read: a guest that ran meanwhile may have changed what was read. */
    if (code == PEER_ERROR_NONE)
        code = export_refuses(export);
    if (code != PEER_ERROR_NONE)
        return append(server, PEER_ERROR, item, 0, item->count ? item->count : 1, code, NULL, 0);
    atomic_fetch_add_explicit(&export->pages_read, item->count, memory_order_relaxed);
    server->used += (size_t)item->count << region->page_shift;
    return append_runs(server, item, data, region->page_size);
}

static int serve_read(Server *server)
{
    const PeerMessage *m = server->request;
    int error = 0;

    atomic_fetch_add_explicit(&server->channel->requests, m->read.n, memory_order_relaxed);
    atomic_fetch_add_explicit(&server->export->reads, m->read.n, memory_order_relaxed);
    if (server->channel->kind == PEER_CHANNEL_URGENT)
        atomic_fetch_add_explicit(&server->export->urgent_reads, m->read.n, memory_order_relaxed);
    for (uint32_t i = 0; i < m->read.n && !error; i++) {
        error = serve_item(server, &m->read.items[i]);
        if (!error && server->used >= SERVER_FLUSH)
            error = flush(server);
    }
    return error;
}

static int serve_map(Server *server)
{
    PeerMessage *m = server->reply;
    uint32_t region = server->request->map_request.region;
    uint64_t page = server->request->map_request.page;
    const Memory *memory = &server->export->memory;
    uint8_t frame[SERVER_IN];
    ssize_t length;
    int error;

    if (export_refuses(server->export) != PEER_ERROR_NONE || region >= memory->regions.n ||
        page >= region_pages(&memory->regions.regions[region]))
        return -EPROTO;
    m->type = PEER_MAP;
    m->session = server->session;
    m->generation = server->generation;
    m->cookie = 0;
    m->map.region = region;
    m->map.seal = atomic_load(&server->export->seal);
    error =
        memory_map(memory, region, page, m->map.extents, PEER_MAP_EXTENTS, &m->map.n, &m->map.next);
    if (error)
        return error;
    length = peer_message_encode(m, frame, sizeof frame);
    if (length < 0)
        return (int)length;
    server->iov[server->n_iov++] = (struct iovec){.iov_base = frame, .iov_len = (size_t)length};
    return flush(server);
}

static int serve_frame(Server *server, const PeerHeader *header, const uint8_t *body)
{
    int error = peer_message_decode(header, body, server->request);

    if (error || header->session != server->session || header->generation != server->generation)
        return -EPROTO;
    switch (server->request->type) {
    case PEER_READ:
        return serve_read(server);
    case PEER_MAP_REQUEST:
        return serve_map(server);
    default:
        return -EPROTO;
    }
}

/* All whole frames in the buffer, then what their answers leave to send. 0 or negative errno. */
static int serve_buffer(Server *server)
{
    int error = 0;

    while (!error && server->tail - server->head >= PEER_HEADER_SIZE) {
        PeerHeader header;

        if (peer_header_decode(server->in + server->head, &header) || header.type == PEER_DATA)
            return -EPROTO;
        if (server->tail - server->head < PEER_HEADER_SIZE + header.length)
            break;
        error = serve_frame(server, &header, server->in + server->head + PEER_HEADER_SIZE);
        server->head += PEER_HEADER_SIZE + header.length;
    }
    memmove(server->in, server->in + server->head, server->tail - server->head);
    server->tail -= server->head;
    server->head = 0;
    return error || server->n_iov == 0 ? error : flush(server);
}

static int serve(Server *server)
{
    int error = 0;

    while (!error) {
        ssize_t n =
            recv(server->fd, server->in + server->tail, sizeof server->in - server->tail, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        server->tail += (size_t)n;
        error = serve_buffer(server);
    }
    return error;
}

void server_run(Export *export, ExportChannel *channel, int fd, uint32_t session,
                uint32_t generation)
{
    Server *server = calloc(1, sizeof *server);
    void *pages = mmap(NULL, PEER_READ_MAX + SERVER_FLUSH, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int error = -ENOMEM;

    if (server && pages != MAP_FAILED) {
        server->export = export;
        server->channel = channel;
        server->fd = fd;
        server->session = session;
        server->generation = generation;
        server->pages = pages;
        server->request = calloc(1, sizeof *server->request);
        server->reply = calloc(1, sizeof *server->reply);
        if (server->request && server->reply)
            error = serve(server);
        free(server->request);
        free(server->reply);
    }
    if (error && error != -ECONNRESET && error != -EPIPE)
        log_warning("%s: channel %u ended: %s", export->name, channel->index,
                    error == -EPROTO ? "the destination sent a malformed or unexpected frame"
                                     : strerrordesc_np(-error));
    if (pages != MAP_FAILED)
        munmap(pages, PEER_READ_MAX + SERVER_FLUSH);
    free(server);
}
