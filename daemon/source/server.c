/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "daemon/core/log.h"
#include "daemon/source/export_rdma.h"

enum {
    SERVER_IN = PEER_HEADER_SIZE + PEER_CONTROL_MAX,
    SERVER_REPLIES = 256,      /* frames sent with one system call */
    SERVER_FLUSH = 128 * 1024, /* bytes after which a batch is sent */
    SERVER_PIECE = 128 * 1024, /* bytes read at once, at least a page; sent from the cache */
    SERVER_HOLE = 64 * 1024,   /* from here on asking for a hole costs less than reading one */
    SERVER_BAD_RUNS = 8,       /* told apart in an item; the destination keeps each on its own */
    SERVER_REPLY_HEAD = PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE,
};

_Static_assert(SCAN_PIECE <= PEER_READ_MAX, "a scan's piece fits where pages are read to");
_Static_assert(SERVER_PIECE / LIMIT_PAGE_SIZE_MIN <= 64, "a piece's pages fit a mask");

typedef struct Server {
    Export *export;
    ExportChannel *channel;
    const ServerLink *link;
    bool begun; /* its first frame was served */
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
    const PeerReadItem *item; /* being answered */
    uint32_t done;            /* of its pages */
    uint32_t bad;             /* pages behind those, not answered yet, that cannot be read */
    unsigned bad_runs;
} Server;

/* Pages that were read, and what is known of them. */
typedef struct Piece {
    const uint8_t *data;
    uint64_t page_size;
    uint32_t count;
    uint64_t bad; /* a bit a page that could not be read */
} Piece;

/* Sends the batch, whatever it takes. 0 or negative errno. */
static int flush(Server *server)
{
    struct msghdr message = {.msg_iov = server->iov, .msg_iovlen = server->n_iov};

    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(server->link->fd, &message, MSG_NOSIGNAL);
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

/* Appends DATA, ZERO or ERROR for the next count pages of the item. 0 or negative errno. */
static int append(Server *server, PeerMessageType type, uint32_t count, PeerErrorCode code,
                  const void *data, size_t length)
{
    PeerMessage *m = server->reply;
    uint8_t *head = server->heads[server->n_heads];
    size_t used;
    int error;

    m->type = type;
    m->session = server->link->session;
    m->generation = server->link->generation;
    m->cookie = server->item->cookie;
    m->placement = (PeerPlacement){
        .seal = atomic_load_explicit(&server->export->seal, memory_order_relaxed),
        .first = server->done,
        .count = count,
        .code = code,
    };
    if (peer_data_encode(m, (uint32_t)length, head, SERVER_REPLY_HEAD) < 0)
        return -EPROTO;
    server->done += count;
    server->n_heads++;
    server->iov[server->n_iov++] = (struct iovec){.iov_base = head, .iov_len = SERVER_REPLY_HEAD};
    if (length > 0)
        server->iov[server->n_iov++] = (struct iovec){.iov_base = (void *)data, .iov_len = length};
    if (server->n_heads < SERVER_REPLIES)
        return 0;
    /* In the middle of a piece: its pages stay where they are until all of them are sent. */
    used = server->used;
    error = flush(server);
    server->used = used;
    return error;
}

/* What failed before the pages that are answered next, as one run. */
static int append_failed(Server *server)
{
    uint32_t count = server->bad;

    if (count == 0)
        return 0;
    server->bad = 0;
    if (++server->bad_runs == SERVER_BAD_RUNS)
        count = server->item->count - server->done; /* with the rest */
    return append(server, PEER_ERROR, count, PEER_ERROR_IO, NULL, 0);
}

static int append_run(Server *server, PeerMessageType answer, uint32_t count, const uint8_t *data,
                      uint64_t page_size)
{
    Export *export = server->export;
    int error;

    if (answer == PEER_ERROR) {
        server->bad += count;
        return 0;
    }
    error = append_failed(server);
    if (error || server->done == server->item->count)
        return error;
    atomic_fetch_add_explicit(&export->pages_read, count, memory_order_relaxed);
    if (answer == PEER_DATA)
        return append(server, PEER_DATA, count, PEER_ERROR_NONE, data, count * page_size);
    atomic_fetch_add_explicit(&export->zero_pages, count, memory_order_relaxed);
    return append(server, PEER_ZERO, count, PEER_ERROR_NONE, NULL, 0);
}

/* All of the item that is not answered yet; an item of no pages too has an answer. */
static int append_refusal(Server *server, PeerErrorCode code)
{
    uint32_t rest = server->item->count - server->done;

    server->bad = 0;
    return append(server, PEER_ERROR, rest ? rest : 1, code, NULL, 0);
}

/* How a page of a piece is answered. */
static PeerMessageType answer_to(const Piece *piece, uint32_t page)
{
    if (piece->bad >> page & 1)
        return PEER_ERROR;
    return memory_is_zero(piece->data + page * piece->page_size, piece->page_size) ? PEER_ZERO
                                                                                   : PEER_DATA;
}

/* The pages of a piece, split into runs that are answered alike. */
static int append_runs(Server *server, const Piece *piece)
{
    PeerMessageType answer = answer_to(piece, 0);
    uint32_t first = 0;
    int error = 0;

    for (uint32_t i = 1; i <= piece->count && !error; i++) {
        PeerMessageType next = i < piece->count ? answer_to(piece, i) : PEER_BYE;
        if (next == answer)
            continue;
        error = append_run(server, answer, i - first, piece->data + first * piece->page_size,
                           piece->page_size);
        if (server->done == server->item->count)
            break; /* all, or the rest was given up */
        answer = next;
        first = i;
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

/* One page that cannot be read must not take its neighbours along. */
static void read_piece(const Server *server, Piece *piece)
{
    const Memory *memory = &server->export->memory;
    uint32_t region = server->item->region;
    uint64_t page = server->item->page + server->done + server->bad;
    uint8_t *data = server->pages + server->used;

    if (memory_read(memory, region, page, piece->count, data) == 0)
        return;
    for (uint32_t i = 0; i < piece->count; i++)
        if (memory_read(memory, region, page + i, 1, data + i * piece->page_size))
            piece->bad |= UINT64_C(1) << i;
}

/* Reads and answers the next pages of the item. */
static int serve_piece(Server *server, const Region *region)
{
    uint32_t most = region->page_size < SERVER_PIECE ? SERVER_PIECE >> region->page_shift : 1;
    uint32_t rest = server->item->count - server->done - server->bad;
    Piece piece = {
        .data = server->pages + server->used,
        .page_size = region->page_size,
        .count = rest < most ? rest : most,
    };
    PeerErrorCode refusal;
    int error;

    read_piece(server, &piece);
    /* Asked again after the read: a guest that ran meanwhile may have changed what was read. */
    refusal = export_refuses(server->export);
    if (refusal != PEER_ERROR_NONE)
        return append_refusal(server, refusal);
    server->used += (size_t)piece.count << region->page_shift;
    error = append_runs(server, &piece);
    return !error && server->used >= SERVER_FLUSH ? flush(server) : error;
}

/* What is a hole at the start of the item is not even read. */
static int serve_hole(Server *server, const Region *region)
{
    const PeerReadItem *item = server->item;
    uint32_t hole = 0;

    if ((uint64_t)item->count << region->page_shift >= SERVER_HOLE)
        hole = memory_hole(&server->export->memory, item->region, item->page, item->count);
    if (hole == 0 || export_refuses(server->export) != PEER_ERROR_NONE)
        return 0;
    return append_run(server, PEER_ZERO, hole, NULL, 0);
}

static int serve_item(Server *server, const PeerReadItem *item)
{
    PeerErrorCode refusal = check_item(server, item);
    const Region *region;
    int error;

    server->item = item;
    server->done = server->bad = 0;
    server->bad_runs = 0;
    if (refusal != PEER_ERROR_NONE)
        return append_refusal(server, refusal);
    region = &server->export->memory.regions.regions[item->region];
    error = serve_hole(server, region);
    while (!error && server->done + server->bad < item->count)
        error = serve_piece(server, region);
    return error ? error : append_failed(server);
}

static int serve_read(Server *server)
{
    const PeerMessage *m = server->request;
    int error = 0;

    atomic_fetch_add_explicit(&server->channel->requests, m->read.n, memory_order_relaxed);
    atomic_fetch_add_explicit(&server->export->reads, m->read.n, memory_order_relaxed);
    if (server->channel->kind == PEER_CHANNEL_URGENT)
        atomic_fetch_add_explicit(&server->export->urgent_reads, m->read.n, memory_order_relaxed);
    for (uint32_t i = 0; i < m->read.n && !error; i++)
        error = serve_item(server, &m->read.items[i]);
    return error;
}

/* Sends server->reply behind what waits to be sent. 0 or negative errno. */
static int send_reply(Server *server)
{
    uint8_t frame[SERVER_IN];
    ssize_t length;

    server->reply->session = server->link->session;
    server->reply->generation = server->link->generation;
    server->reply->cookie = 0;
    length = peer_message_encode(server->reply, frame, sizeof frame);
    if (length < 0)
        return (int)length;
    server->iov[server->n_iov++] = (struct iovec){.iov_base = frame, .iov_len = (size_t)length};
    return flush(server);
}

static bool is_readable(const Server *server, uint32_t region, uint64_t page)
{
    const RegionSet *regions = &server->export->memory.regions;

    return export_refuses(server->export) == PEER_ERROR_NONE && region < regions->n &&
           page < region_pages(&regions->regions[region]);
}

static int serve_map(Server *server)
{
    PeerMessage *m = server->reply;
    uint32_t region = server->request->map_request.region;
    uint64_t page = server->request->map_request.page;
    int error;

    if (!is_readable(server, region, page))
        return -EPROTO;
    m->type = PEER_MAP;
    m->map.region = region;
    m->map.seal = atomic_load(&server->export->seal);
    error = memory_map(&server->export->memory, region, page, m->map.extents, PEER_MAP_EXTENTS,
                       &m->map.n, &m->map.next);
    return error ? error : send_reply(server);
}

/* --- the destination reads by itself ------------------------------------------------------- */

/* Before anything else, so that what is broken with it was never in use. */
static int serve_connect(Server *server)
{
    const ServerLink *link = server->link;

    if (server->begun)
        return -EPROTO;
    server->reply->rdma_connect = server->request->rdma_connect;
    export_rdma_connect(server->export, server->channel, link->fd, link->session, link->budget,
                        link->rdma_refusal, server->reply);
    return send_reply(server);
}

static int serve_keys(Server *server, Spans *spans)
{
    PeerMessage *m = server->reply;
    uint32_t region = server->request->keys_request.region;
    uint64_t page = server->request->keys_request.page;
    int error;

    if (!is_readable(server, region, page))
        return -EPROTO;
    error = flush(server); /* its pages lie where the scan reads to */
    if (error)
        return error;
    error = spans_find(spans, region, page, server->pages, m);
    if (error)
        return error;
    m->keys.seal = atomic_load(&server->export->seal);
    /* Asked again after the work, as for a READ: the key would be of a guest that ran meanwhile. */
    if (export_refuses(server->export) != PEER_ERROR_NONE)
        return -ECANCELED;
    if (m->keys.state == PEER_KEYS_SPAN)
        atomic_fetch_add_explicit(&server->export->rdma_spans, 1, memory_order_relaxed);
    return send_reply(server);
}

/* What only a channel with a queue pair says. */
static int serve_spans(Server *server)
{
    const ExportRdma *rdma = server->channel->rdma;

    if (!rdma || server->channel->kind != PEER_CHANNEL_BULK)
        return -EPROTO;
    if (server->request->type == PEER_KEYS_REQUEST)
        return serve_keys(server, rdma->spans);
    return spans_retire(rdma->spans, server->request->keys_done.id) ? -EPROTO : 0;
}

/* --- frames -------------------------------------------------------------------------------- */

static int serve_request(Server *server)
{
    bool rdma = server->link->features & PEER_FEATURE_RDMA;

    switch (server->request->type) {
    case PEER_READ:
        return serve_read(server);
    case PEER_MAP_REQUEST:
        return serve_map(server);
    case PEER_RDMA_CONNECT:
        return rdma ? serve_connect(server) : -EPROTO;
    case PEER_KEYS_REQUEST:
    case PEER_KEYS_DONE:
        return rdma ? serve_spans(server) : -EPROTO;
    default:
        return -EPROTO;
    }
}

static int serve_frame(Server *server, const PeerHeader *header, const uint8_t *body)
{
    int error = peer_message_decode(header, body, server->request);

    if (error || header->session != server->link->session ||
        header->generation != server->link->generation)
        return -EPROTO;
    error = serve_request(server);
    server->begun = true;
    return error;
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
            recv(server->link->fd, server->in + server->tail, sizeof server->in - server->tail, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        server->tail += (size_t)n;
        error = serve_buffer(server);
    }
    return error;
}

void server_run(Export *export, ExportChannel *channel, const ServerLink *link)
{
    Server *server = calloc(1, sizeof *server);
    void *pages = mmap(NULL, PEER_READ_MAX + SERVER_FLUSH, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int error = -ENOMEM;

    prctl(PR_SET_NAME, channel->kind == PEER_CHANNEL_URGENT ? "serve-urgent" : "serve-bulk");
    if (server && pages != MAP_FAILED) {
        server->export = export;
        server->channel = channel;
        server->link = link;
        server->pages = pages;
        server->request = calloc(1, sizeof *server->request);
        server->reply = calloc(1, sizeof *server->reply);
        if (server->request && server->reply)
            error = serve(server);
        free(server->request);
        free(server->reply);
    }
    export_rdma_disconnect(export, channel);
    if (error && error != -ECONNRESET && error != -EPIPE)
        log_warning("%s: channel %u ended: %s", export->name, channel->index,
                    error == -EPROTO ? "the destination sent a malformed or unexpected frame"
                                     : strerrordesc_np(-error));
    if (pages != MAP_FAILED)
        munmap(pages, PEER_READ_MAX + SERVER_FLUSH);
    free(server);
}
