/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/client_fake.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

void fake_daemon_listen(FakeDaemon *daemon)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, daemon->path, sizeof daemon->path);
    daemon->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(daemon->listener >= 0);
    assert_int_equal(bind(daemon->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(daemon->listener, 4), 0);
}

void fake_daemon_stop_listening(FakeDaemon *daemon)
{
    close(daemon->listener);
    daemon->listener = -1;
    unlink(daemon->path);
}

FakeDaemon *fake_daemon_new(void)
{
    FakeDaemon *daemon = calloc(1, sizeof *daemon);

    assert_non_null(daemon);
    strcpy(daemon->folder, "/tmp/postcopy-test-XXXXXX");
    assert_non_null(mkdtemp(daemon->folder));
    snprintf(daemon->path, sizeof daemon->path, "%s/socket", daemon->folder);
    daemon->socket = -1;
    daemon->table_fd = -1;
    fake_daemon_listen(daemon);
    return daemon;
}

void fake_daemon_free(FakeDaemon *daemon)
{
    fake_daemon_hang_up(daemon);
    if (daemon->listener >= 0)
        fake_daemon_stop_listening(daemon);
    if (daemon->table)
        munmap(daemon->table, daemon->table_size);
    if (daemon->table_fd >= 0)
        close(daemon->table_fd);
    rmdir(daemon->folder);
    free(daemon);
}

static void await(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&readable, 1, FAKE_TIMEOUT_MS), 1);
}

void fake_daemon_accept(FakeDaemon *daemon)
{
    await(daemon->listener);
    daemon->socket = accept4(daemon->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(daemon->socket >= 0);
    client_channel_init(&daemon->channel, daemon->socket);
}

void fake_daemon_hang_up(FakeDaemon *daemon)
{
    if (daemon->socket < 0)
        return;
    client_channel_deinit(&daemon->channel);
    close(daemon->socket);
    daemon->socket = -1;
}

void fake_daemon_expect(FakeDaemon *daemon, ClientMessageType type)
{
    await(daemon->socket);
    assert_int_equal(client_channel_receive(&daemon->channel, &daemon->in), 1);
    assert_int_equal(daemon->in.type, type);
}

void fake_daemon_send(FakeDaemon *daemon, const int *fds, size_t n_fds)
{
    assert_int_equal(client_message_send(daemon->socket, &daemon->out, fds, n_fds, daemon->scratch),
                     0);
}

void fake_daemon_send_type(FakeDaemon *daemon, ClientMessageType type)
{
    daemon->out.type = type;
    daemon->out.serial = 100;
    fake_daemon_send(daemon, NULL, 0);
}

void fake_daemon_send_status(FakeDaemon *daemon, ClientMessageType type, uint32_t serial,
                             int status, const char *text)
{
    memset(&daemon->out.status, 0, sizeof daemon->out.status);
    daemon->out.type = type;
    daemon->out.serial = serial;
    daemon->out.status.status = status;
    memcpy(daemon->out.status.text, text, strlen(text) + 1);
    fake_daemon_send(daemon, NULL, 0);
}

void fake_daemon_send_state(FakeDaemon *daemon, ClientState state)
{
    memset(&daemon->out.state, 0, sizeof daemon->out.state);
    daemon->out.state.state = state;
    fake_daemon_send_type(daemon, CLIENT_STATE);
}

void fake_daemon_welcome(FakeDaemon *daemon)
{
    fake_daemon_accept(daemon);
    fake_daemon_expect(daemon, CLIENT_HELLO);
    daemon->out.type = CLIENT_WELCOME;
    daemon->out.serial = daemon->in.serial;
    daemon->out.welcome.session = 1;
    daemon->out.welcome.features = 0;
    fake_daemon_send(daemon, NULL, 0);
}

void fake_daemon_make_table(FakeDaemon *daemon, const FakeVmm *vmm, bool sealed)
{
    uint64_t length = (uint64_t)vmm->pages * FAKE_PAGE;
    uint64_t words = page_table_region_words(length, FAKE_PAGE);

    daemon->table_size = PAGE_TABLE_HEADER_SIZE + FAKE_REGIONS * words * sizeof(uint64_t);
    daemon->table_fd = memfd_create("table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(daemon->table_fd >= 0);
    assert_int_equal(ftruncate(daemon->table_fd, (off_t)daemon->table_size), 0);
    if (sealed)
        assert_int_equal(fcntl(daemon->table_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    daemon->table =
        mmap(NULL, daemon->table_size, PROT_READ | PROT_WRITE, MAP_SHARED, daemon->table_fd, 0);
    assert_ptr_not_equal(daemon->table, MAP_FAILED);
    daemon->table->magic = PAGE_TABLE_MAGIC;
    daemon->table->version = PAGE_TABLE_VERSION;
    daemon->table->n_regions = FAKE_REGIONS;
    daemon->table->n_words = FAKE_REGIONS * words;
    for (uint32_t i = 0; i < FAKE_REGIONS; i++) {
        daemon->table->regions[i].length = length;
        daemon->table->regions[i].page_size = FAKE_PAGE;
        daemon->table->regions[i].first_word = i * words;
    }
}

uint64_t *fake_daemon_table_word(FakeDaemon *daemon, uint32_t region)
{
    return (uint64_t *)((uint8_t *)daemon->table + PAGE_TABLE_HEADER_SIZE) +
           daemon->table->regions[region].first_word;
}

void fake_daemon_prepare_arm(FakeDaemon *daemon, const FakeVmm *vmm, uint32_t n_shards)
{
    uint64_t length = (uint64_t)vmm->pages / n_shards * FAKE_PAGE;

    memset(&daemon->out, 0, sizeof daemon->out);
    daemon->out.type = CLIENT_ARM;
    daemon->out.serial = 7;
    daemon->out.arm.table_size = daemon->table_size;
    daemon->out.arm.n_shards = FAKE_REGIONS * n_shards;
    for (uint32_t i = 0; i < FAKE_REGIONS * n_shards; i++) {
        ClientShard *shard = &daemon->out.arm.shards[i];
        shard->region = i / n_shards;
        shard->start = i % n_shards * length;
        shard->length = length;
    }
}

int fake_daemon_arm(FakeDaemon *daemon)
{
    int fds[] = {daemon->table_fd, -1};
    size_t n_fds = 1;

    if (daemon->out.arm.flags & CLIENT_ARM_DEVICE) {
        fds[1] = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        assert_true(fds[1] >= 0);
        n_fds = 2;
    }
    fake_daemon_send(daemon, fds, n_fds);
    if (fds[1] >= 0)
        close(fds[1]);
    fake_daemon_expect(daemon, CLIENT_ARMED);
    assert_int_equal(daemon->in.serial, 7);
    return daemon->in.status.status;
}

int fake_daemon_release(FakeDaemon *daemon, uint32_t flags)
{
    daemon->out.release.flags = flags;
    fake_daemon_send_type(daemon, CLIENT_RELEASE);
    fake_daemon_expect(daemon, CLIENT_RELEASED);
    return daemon->in.status.status;
}

FakeVmm *fake_vmm_new(uint32_t pages)
{
    size_t length = (size_t)pages * FAKE_PAGE;
    FakeVmm *vmm = calloc(1, sizeof *vmm);

    assert_non_null(vmm);
    vmm->pages = pages;
    vmm->memfd = memfd_create("ram", MFD_CLOEXEC);
    assert_true(vmm->memfd >= 0);
    assert_int_equal(ftruncate(vmm->memfd, (off_t)length + FAKE_PAGE), 0);
    vmm->memory[0] = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    vmm->memory[1] = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->memfd, FAKE_PAGE);
    assert_ptr_not_equal(vmm->memory[0], MAP_FAILED);
    assert_ptr_not_equal(vmm->memory[1], MAP_FAILED);
    return vmm;
}

struct postcopy_region fake_vmm_region(const FakeVmm *vmm, unsigned index)
{
    static const char *const ids[] = {"low", "high"};

    return (struct postcopy_region){
        .id = ids[index],
        .guest_address = (uint64_t)index << 32,
        .address = vmm->memory[index],
        .length = (uint64_t)vmm->pages * FAKE_PAGE,
        .page_size = FAKE_PAGE,
        .backing = index ? POSTCOPY_SHARED : POSTCOPY_ANONYMOUS,
        .fd = index ? vmm->memfd : -1,
        .fd_offset = index ? FAKE_PAGE : 0,
    };
}

static void notify(void *user, const struct postcopy_notification *notification)
{
    FakeVmm *vmm = user;

    __atomic_store_n(&vmm->last_event, (int)notification->event, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&vmm->n_events, 1, __ATOMIC_SEQ_CST);
}

static const char *refuse(void *user, enum postcopy_role role)
{
    FakeVmm *vmm = user;

    (void)role;
    return __atomic_load_n(&vmm->refusal, __ATOMIC_SEQ_CST);
}

void fake_vmm_connect(FakeVmm *vmm, const FakeDaemon *daemon, enum postcopy_role role)
{
    struct postcopy_region regions[] = {fake_vmm_region(vmm, 0), fake_vmm_region(vmm, 1)};
    uint32_t vcpus[] = {11, 12, 13};
    struct postcopy_config config = {
        .size = sizeof config,
        .socket = daemon->path,
        .role = role,
        .uuid = {1, 2, 3},
        .name = "guest",
        .regions = regions,
        .n_regions = FAKE_REGIONS,
        .vcpus = vcpus,
        .n_vcpus = 3,
        .notify = notify,
        .refuse = refuse,
        .user = vmm,
    };

    assert_int_equal(postcopy_connect(&config, 0, 0, &vmm->pc), 0);
}

void fake_vmm_free(FakeVmm *vmm)
{
    assert_int_equal(postcopy_free(vmm->pc), 0);
    munmap(vmm->memory[0], (size_t)vmm->pages * FAKE_PAGE);
    munmap(vmm->memory[1], (size_t)vmm->pages * FAKE_PAGE);
    close(vmm->memfd);
    free(vmm);
}

int fake_count_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

int fake_pair_set_up(void **state, uint32_t pages)
{
    FakePair *pair = calloc(1, sizeof *pair);

    assert_non_null(pair);
    pair->fds_before = fake_count_fds();
    pair->daemon = fake_daemon_new();
    pair->vmm = fake_vmm_new(pages);
    for (unsigned i = 0; i < FAKE_REGIONS; i++)
        memset(pair->vmm->memory[i], 0x5a, FAKE_PAGE);
    fake_vmm_connect(pair->vmm, pair->daemon, POSTCOPY_DESTINATION);
    fake_daemon_welcome(pair->daemon);
    *state = pair;
    return 0;
}

int fake_pair_tear_down(void **state)
{
    FakePair *pair = *state;

    fake_vmm_free(pair->vmm);
    fake_daemon_free(pair->daemon);
    assert_int_equal(fake_count_fds(), pair->fds_before);
    free(pair);
    return 0;
}
