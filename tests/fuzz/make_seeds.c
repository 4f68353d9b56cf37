/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes the seeds of the fuzzers: each sample message as a file of FOLDER/client or FOLDER/peer,
 * and all frames between daemons once more as one stream.
 *
 * usage: make_seeds FOLDER
 */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/unit/protocol_samples.h"

static uint8_t bytes[1 << 20];

static void write_seed(const char *folder, const char *kind, const char *name, size_t length)
{
    char path[PATH_MAX];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s/%s", folder, kind, name);
    file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file)) {
        perror(path);
        exit(1);
    }
}

static void write_client_seeds(const char *folder)
{
    static ClientMessage message;
    const char *name;
    uint32_t n_fds;

    for (unsigned i = 0; (name = client_sample(i, &message, &n_fds)); i++) {
        ssize_t length = client_message_encode(&message, n_fds, bytes);
        if (length < 0)
            exit(1);
        write_seed(folder, "client", name, (size_t)length);
    }
}

static void write_peer_seeds(const char *folder)
{
    static PeerMessage message;
    size_t stream = 0;
    const char *name;
    ssize_t length;

    for (unsigned i = 0; (name = peer_sample(i, &message)); i++) {
        length = peer_message_encode(&message, bytes, sizeof bytes);
        if (length < 0)
            exit(1);
        write_seed(folder, "peer", name, (size_t)length);
    }
    for (unsigned i = 0; peer_sample(i, &message); i++) {
        length = peer_message_encode(&message, bytes + stream, sizeof bytes - stream);
        if (length < 0)
            exit(1);
        stream += (size_t)length;
    }
    write_seed(folder, "peer", "stream", stream);
}

static void make_folder(const char *folder, const char *kind)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", folder, kind);
    mkdir(path, 0777);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_seeds FOLDER\n");
        return 2;
    }
    mkdir(argv[1], 0777);
    make_folder(argv[1], "client");
    make_folder(argv[1], "peer");
    write_client_seeds(argv[1]);
    write_peer_seeds(argv[1]);
    return 0;
}
