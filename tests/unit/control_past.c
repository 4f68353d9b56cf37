/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Imports that are over: who is found, and how many are kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/control/past.h"

static const char uuid[] = "01234567-89ab-cdef-fedc-ba9876543210";

static void add(GQueue *imports, const char *vm, const char *of, gint64 faults)
{
    JsonObject *import = json_object_new();

    json_object_set_string_member(import, "vm", vm);
    json_object_set_string_member(import, "uuid", of);
    json_object_set_string_member(import, "mode", "direct");
    json_object_set_string_member(import, "state", "released");
    json_object_set_string_member(import, "source", "192.0.2.1:7");
    json_object_set_int_member(import, "faults", faults);
    past_add(imports, import);
}

static guint count(GQueue *imports, const char *vm)
{
    g_autoptr(JsonArray) found = past_list(imports, vm);

    return json_array_get_length(found);
}

/* Of a VM's newest. */
static gint64 faults(GQueue *imports, const char *vm)
{
    g_autoptr(JsonArray) found = past_list(imports, vm);

    return json_object_get_int_member(json_array_get_object_element(found, 0), "faults");
}

static gboolean is_whole(GQueue *imports, const char *vm, guint i)
{
    g_autoptr(JsonArray) found = past_list(imports, vm);

    return json_object_has_member(json_array_get_object_element(found, i), "faults");
}

static void test_by_name_and_uuid(void **state)
{
    GQueue imports = G_QUEUE_INIT;

    (void)state;
    assert_int_equal(count(&imports, NULL), 0);
    add(&imports, "a", uuid, 1);
    add(&imports, "b", "", 2);
    add(&imports, "a", uuid, 3);
    assert_int_equal(count(&imports, "a"), 2);
    assert_int_equal(faults(&imports, "a"), 3);
    assert_true(is_whole(&imports, "a", 0));
    assert_false(is_whole(&imports, "a", 1));
    assert_false(is_whole(&imports, NULL, 0));
    assert_int_equal(count(&imports, uuid), 2);
    assert_int_equal(count(&imports, "01234567-89AB-CDEF-FEDC-BA9876543210"), 2);
    assert_int_equal(count(&imports, "b"), 1);
    assert_int_equal(count(&imports, "c"), 0);
    assert_int_equal(count(&imports, ""), 0);
    past_clear(&imports);
    assert_int_equal(count(&imports, NULL), 0);
}

static void test_few_words(void **state)
{
    GQueue imports = G_QUEUE_INIT;
    g_autoptr(JsonArray) all = NULL;
    JsonObject *import;

    (void)state;
    add(&imports, "a", uuid, 1);
    all = past_list(&imports, NULL);
    import = json_array_get_object_element(all, 0);
    assert_string_equal(json_object_get_string_member(import, "vm"), "a");
    assert_true(json_object_get_int_member(import, "ended_us") > 0);
    assert_false(json_object_has_member(import, "faults"));
    past_clear(&imports);
}

/* What nobody looks at is not kept. */
static void test_vcpus(void **state)
{
    GQueue imports = G_QUEUE_INIT;
    JsonObject *import = json_object_new(), *vcpu;
    JsonArray *vcpus = json_array_new();

    (void)state;
    for (int i = 0; i < 3; i++) {
        JsonObject *latency = json_object_new();

        vcpu = json_object_new();
        json_object_set_int_member(latency, "p50_ns", 7);
        json_object_set_array_member(latency, "histogram", json_array_new());
        json_object_set_int_member(vcpu, "vcpu", i);
        json_object_set_int_member(vcpu, "faults", i % 2);
        json_object_set_object_member(vcpu, "latency", latency);
        json_array_add_object_element(vcpus, vcpu);
    }
    json_object_set_array_member(import, "vcpus", vcpus);
    past_add(&imports, import);
    vcpus = json_object_get_array_member(import, "vcpus");
    assert_int_equal(json_array_get_length(vcpus), 1);
    vcpu = json_array_get_object_element(vcpus, 0);
    assert_int_equal(json_object_get_int_member(vcpu, "vcpu"), 1);
    vcpu = json_object_get_object_member(vcpu, "latency");
    assert_int_equal(json_object_get_int_member(vcpu, "p50_ns"), 7);
    assert_false(json_object_has_member(vcpu, "histogram"));
    past_clear(&imports);
}

static void test_bound(void **state)
{
    GQueue imports = G_QUEUE_INIT;

    (void)state;
    for (int i = 0; i < PAST_MOST + 5; i++)
        add(&imports, "a", "", i);
    assert_int_equal(count(&imports, "a"), PAST_MOST);
    assert_int_equal(faults(&imports, "a"), PAST_MOST + 4);
    past_clear(&imports);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_name_and_uuid),
        cmocka_unit_test(test_few_words),
        cmocka_unit_test(test_vcpus),
        cmocka_unit_test(test_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
