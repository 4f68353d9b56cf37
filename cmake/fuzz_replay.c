/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Feeds files, and the files of folders, to a fuzz target once each: what stands in for
 * libFuzzer in a build without it.
 */
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path, size_t size)
{
    /* One byte at least: malloc(0) may be NULL, which is no failure. */
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");
    size_t got = 0;

    if (data && file) {
        got = fread(data, 1, size, file);
    }
    if (file) {
        fclose(file);
    }
    if (!data || !file || got != size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        free(data);
        return 1;
    }
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 0;
}

static int replay(const char *path);

static int replay_folder(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    int failed = count < 0;

    for (int i = 0; i < count; i++) {
        char child[PATH_MAX];

        snprintf(child, sizeof(child), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') {
            failed |= replay(child);
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
    return failed;
}

static int replay(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        perror(path);
        return 1;
    }
    return S_ISDIR(st.st_mode) ? replay_folder(path) : replay_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    int failed = 0;

    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        failed |= replay(argv[i]);
    }
    return failed;
}
