/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decodes one packet of a client.  What decodes keeps the bounds and encodes to the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static void check_hello(const ClientHello *hello, uint32_t n_fds)
{
    check(strlen(hello->name) <= LIMIT_NAME && strlen(hello->problem) <= LIMIT_TEXT);
    check(hello->n_regions <= LIMIT_REGIONS && hello->n_vcpus <= LIMIT_VCPUS);
    check(hello->n_shards <= LIMIT_SHARDS && hello->blob_length <= LIMIT_BLOB);
    for (uint32_t i = 0; i < hello->n_regions; i++) {
        check(limits_region_fits(hello->regions[i].length, hello->regions[i].page_size));
        check(hello->regions[i].fd == -1 || (uint32_t)hello->regions[i].fd < n_fds);
    }
    for (uint32_t i = 0; i < hello->n_shards; i++)
        check(hello->shards[i].region < hello->n_regions);
    if (hello->n_shards > 0)
        check(hello->table_fd + hello->n_shards < n_fds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ClientMessage message;
    static uint8_t packet[CLIENT_PACKET_MAX];
    ssize_t length;

    if (size > CLIENT_PACKET_MAX || client_message_decode(data, size, &message))
        return 0;
    check(message.n_fds <= LIMIT_FDS);
    if (message.type == CLIENT_UNKNOWN)
        return 0;
    if (message.type == CLIENT_HELLO)
        check_hello(&message.hello, message.n_fds);
    length = client_message_encode(&message, message.n_fds, packet);
    check(length == (ssize_t)size && memcmp(packet, data, size) == 0);
    check(client_message_decode(packet, (size_t)length, &message) == 0);
    return 0;
}
