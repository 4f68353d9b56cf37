# SPDX-License-Identifier: GPL-2.0-or-later
#
# How a folder becomes a target. DEPS are targets of this project, PKG are pkg-config modules.

# Takes the name as "NAME x" or as the first argument, and turns down what nobody knows.
macro(postcopyd_parse_name)
    if(NOT arg_NAME)
        list(POP_FRONT arg_UNPARSED_ARGUMENTS arg_NAME)
    endif()
    if(NOT arg_NAME OR NOT arg_SOURCES OR arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "${CMAKE_CURRENT_FUNCTION}: wants NAME and SOURCES, "
            "does not know '${arg_UNPARSED_ARGUMENTS}'")
    endif()
endmacro()

function(postcopyd_target_links target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEPS;PKG")
    foreach(module IN LISTS arg_PKG)
        string(MAKE_C_IDENTIFIER "${module}" name)
        if(NOT TARGET PkgConfig::PC_${name})
            pkg_check_modules(PC_${name} REQUIRED QUIET IMPORTED_TARGET GLOBAL "${module}")
        endif()
        target_link_libraries(${target} PUBLIC PkgConfig::PC_${name})
    endforeach()
    target_link_libraries(${target} PUBLIC ${arg_DEPS} Threads::Threads)
endfunction()

# postcopyd_library(NAME core SOURCES a.c … [DEPS protocol …] [PKG glib-2.0 …])
# The static library of one folder, lib${NAME}.a.
function(postcopyd_library)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;DEPS;PKG")
    postcopyd_parse_name()
    add_library(${arg_NAME} STATIC ${arg_SOURCES})
    postcopyd_target_links(${arg_NAME} DEPS ${arg_DEPS} PKG ${arg_PKG})
endfunction()

# postcopyd_executable(NAME postcopyd SOURCES main.c … [DEPS …] [PKG …] [DESTINATION dir])
# A program in bin/ of the build tree, installed into DESTINATION (the bindir unless told).
function(postcopyd_executable)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;DESTINATION" "SOURCES;DEPS;PKG")
    postcopyd_parse_name()
    if(NOT arg_DESTINATION)
        set(arg_DESTINATION "${CMAKE_INSTALL_BINDIR}")
    endif()
    add_executable(${arg_NAME} ${arg_SOURCES})
    postcopyd_target_links(${arg_NAME} DEPS ${arg_DEPS} PKG ${arg_PKG})
    install(TARGETS ${arg_NAME} RUNTIME DESTINATION "${arg_DESTINATION}")
endfunction()

# postcopyd_no_sanitize(target)
# For what is loaded into a program built without sanitizers: their runtime would not be there.
# It covers the sources of this target only, not the static libraries it links.
function(postcopyd_no_sanitize target)
    if(NOT POSTCOPYD_SANITIZE STREQUAL "")
        target_compile_options(${target} PRIVATE
            "$<$<COMPILE_LANGUAGE:C>:-fno-sanitize=all>")
        target_link_options(${target} PRIVATE -fno-sanitize=all)
    endif()
endfunction()

# postcopyd_freestanding(target)
# For code that runs on bare hardware, as the tests' guest does.
function(postcopyd_freestanding target)
    postcopyd_no_sanitize(${target})
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE
        "$<$<COMPILE_LANGUAGE:C>:-ffreestanding;-fno-stack-protector;-U_FORTIFY_SOURCE>"
        -fno-pie)
    target_link_options(${target} PRIVATE
        -nostdlib -static -Wl,--build-id=none -Wl,-z,norelro
        "$<$<C_COMPILER_ID:Clang>:-Qunused-arguments>")
endfunction()
