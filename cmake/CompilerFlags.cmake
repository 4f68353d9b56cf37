# SPDX-License-Identifier: GPL-2.0-or-later
#
# Language, warnings, hardening and sanitizers, for every target of the project.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# The static libraries end in shared ones too.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")

# Empty, not 1: a file that says "#define _GNU_SOURCE" itself repeats the same definition.
add_compile_definitions(_GNU_SOURCE=)

set(postcopyd_warnings
    -Wall
    -Wextra
    -Wshadow
    -Wstrict-prototypes
    -Wmissing-prototypes
    -Wpointer-arith
    -Wundef
    -Wformat=2
    -Wvla)
if(POSTCOPYD_WERROR)
    list(APPEND postcopyd_warnings -Werror)
endif()
add_compile_options("$<$<COMPILE_LANGUAGE:C>:${postcopyd_warnings}>")

add_compile_options("$<$<COMPILE_LANGUAGE:C>:-fstack-protector-strong>")
add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack)

if(POSTCOPYD_SANITIZE STREQUAL "")
    # Needs an optimised build, and hides calls from the sanitizers' interceptors.
    add_compile_options(
        "$<$<AND:$<COMPILE_LANGUAGE:C>,$<NOT:$<CONFIG:Debug>>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
else()
    if(POSTCOPYD_SANITIZE STREQUAL "fuzz")
        set(postcopyd_sanitizers "fuzzer-no-link,address,undefined")
        add_compile_definitions(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION=1)
    else()
        set(postcopyd_sanitizers "${POSTCOPYD_SANITIZE}")
    endif()
    add_compile_options(
        "$<$<COMPILE_LANGUAGE:C>:-fsanitize=${postcopyd_sanitizers};-fno-sanitize-recover=all;-fno-omit-frame-pointer>")
    add_link_options("-fsanitize=${postcopyd_sanitizers}")
endif()
