# SPDX-License-Identifier: GPL-2.0-or-later
#
# How a test is registered. Exit status 77 means skipped, and the test says why.

set(POSTCOPYD_FUZZ_SECONDS 60 CACHE STRING "How long each fuzz target runs in a fuzzing build")

# postcopyd_test(NAME test_page_table SOURCES test_page_table.c
#     [LIBS core …] [PKG …] [LABELS unit …] [ARGS …] [TIMEOUT seconds] [SERIAL])
# A cmocka program that ctest runs. Labels: unit (also the default), stress, integration, e2e.
function(postcopyd_test)
    cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT" "SOURCES;LIBS;PKG;LABELS;ARGS")
    postcopyd_parse_name()
    if(NOT arg_LABELS)
        set(arg_LABELS unit)
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120)
    endif()
    add_executable(${arg_NAME} ${arg_SOURCES})
    set_target_properties(${arg_NAME} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
    postcopyd_target_links(${arg_NAME} DEPS ${arg_LIBS} PKG cmocka ${arg_PKG})
    add_test(NAME ${arg_NAME} COMMAND ${arg_NAME} ${arg_ARGS})
    set_tests_properties(${arg_NAME} PROPERTIES
        LABELS "${arg_LABELS}"
        TIMEOUT ${arg_TIMEOUT}
        SKIP_RETURN_CODE 77
        RUN_SERIAL "$<BOOL:${arg_SERIAL}>")
    if(POSTCOPYD_SANITIZE) # GLib's own allocator has locks that ThreadSanitizer does not see
        set_tests_properties(${arg_NAME} PROPERTIES ENVIRONMENT G_SLICE=always-malloc)
    endif()
endfunction()

# postcopyd_fuzzer(NAME fuzz_client SOURCES fuzz_client.c
#     [LIBS protocol …] [PKG …] [SEEDS folder] [DICT file])
# In a fuzzing build: LLVMFuzzerTestOneInput under libFuzzer for POSTCOPYD_FUZZ_SECONDS.
# In every other build: each file of SEEDS once, as a unit test.
function(postcopyd_fuzzer)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;SEEDS;DICT" "SOURCES;LIBS;PKG")
    postcopyd_parse_name()
    set(seeds "")
    if(arg_SEEDS)
        get_filename_component(seeds "${arg_SEEDS}" ABSOLUTE)
    endif()

    add_executable(${arg_NAME} ${arg_SOURCES})
    set_target_properties(${arg_NAME} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
    postcopyd_target_links(${arg_NAME} DEPS ${arg_LIBS} PKG ${arg_PKG})

    if(NOT POSTCOPYD_SANITIZE STREQUAL "fuzz")
        target_sources(${arg_NAME} PRIVATE "${PROJECT_SOURCE_DIR}/cmake/fuzz_replay.c")
        add_test(NAME ${arg_NAME} COMMAND ${arg_NAME} ${seeds})
        set_tests_properties(${arg_NAME} PROPERTIES LABELS "unit;fuzz" TIMEOUT 120)
        return()
    endif()

    set(corpus "${CMAKE_CURRENT_BINARY_DIR}/${arg_NAME}.corpus")
    file(MAKE_DIRECTORY "${corpus}")
    set(options
        -max_total_time=${POSTCOPYD_FUZZ_SECONDS} -timeout=10 -rss_limit_mb=2048
        -print_final_stats=1 "-artifact_prefix=${CMAKE_CURRENT_BINARY_DIR}/${arg_NAME}.")
    if(arg_DICT)
        get_filename_component(dict "${arg_DICT}" ABSOLUTE)
        list(APPEND options "-dict=${dict}")
    endif()
    math(EXPR timeout "${POSTCOPYD_FUZZ_SECONDS} + 120")

    target_link_options(${arg_NAME} PRIVATE -fsanitize=fuzzer)
    add_test(NAME ${arg_NAME} COMMAND ${arg_NAME} ${options} "${corpus}" ${seeds})
    set_tests_properties(${arg_NAME} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
endfunction()
