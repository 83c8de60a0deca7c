# Flags of our own code, in one place.
set(HAX_HAS_CUDA OFF)
if(HAX_CUDA OR HAX_EMULATE_CUDA)
  set(HAX_HAS_CUDA ON)
endif()
add_library(hax_options INTERFACE)
set(warnings -Wall -Wextra -Wshadow -Wno-sign-conversion -Werror)
# GCC 12 reports false positives from inlined standard-library code at -O3.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND warnings -Wno-array-bounds -Wno-stringop-overflow -Wno-maybe-uninitialized -Wno-restrict)
endif()
# errno from math functions is never read; without it GCC can vectorise sqrt and friends.
# Floating-point exceptions are never trapped; without this GCC keeps branches that cannot be vectorised.
set(flags -fno-math-errno -fno-trapping-math)
if(HAX_NATIVE)
  include(CheckCXXCompilerFlag)
  list(APPEND flags -march=native)
  check_cxx_compiler_flag(-mprefer-vector-width=512 HAX_PREFER_512)
  if(HAX_PREFER_512 AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND flags -mprefer-vector-width=512)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND flags -march=x86-64-v2)
endif()
target_compile_options(hax_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wconversion;${warnings};${flags}>")
if(HAX_CUDA)
  # What nvcc makes of a kernel for the host compiler does not pass -Wconversion; the emulation's compiler checks that.
  list(JOIN warnings "," host_warnings)
  target_compile_options(hax_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-Werror=all-warnings;-Xcompiler=${host_warnings}>")
  # fmt turns half of its constexpr off for nvcc, which the other half then calls.
  target_compile_definitions(hax_options INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1>")
endif()
if(HAX_SANITIZE)
  target_compile_options(hax_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(hax_options INTERFACE -fsanitize=address,undefined)
endif()

# hax_sources(RESULT FOLDER): every .cpp under FOLDER, and with a CUDA backend every .cu. Folders called nvidia belong to
# nvcc's build alone, folders called emulation to the emulation's.
function(hax_sources result folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  if(HAX_CUDA OR HAX_EMULATE_CUDA)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${folder}/*.cu)
    list(APPEND sources ${cuda_sources})
  endif()
  if(NOT HAX_CUDA)
    list(FILTER sources EXCLUDE REGEX "/cuda/nvidia/")
  endif()
  if(NOT HAX_EMULATE_CUDA)
    list(FILTER sources EXCLUDE REGEX "/cuda/emulation/")
  endif()
  set(${result} ${sources} PARENT_SCOPE)
endfunction()

# hax_emulate(SOURCES...): has the C++ compiler take .cu files for C++, in the emulation's build.
function(hax_emulate)
  if(HAX_EMULATE_CUDA)
    list(FILTER ARGN INCLUDE REGEX "\\.cu$")
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  endif()
endfunction()

# hax_library(NAME DEPENDS public... PRIVATE private...): a static library of the sources under NAME/.
# PRIVATE libraries must be header-only: the installed package (install.cmake) does not know them, so a program that links
# it could not link theirs.
function(hax_library name)
  cmake_parse_arguments(arg "" "" "DEPENDS;PRIVATE" ${ARGN})
  hax_sources(sources ${CMAKE_SOURCE_DIR}/${name})
  set(target hax_${name})
  if(sources)
    hax_emulate(${sources})
    add_library(${target} STATIC ${sources})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:hax_options>)
    foreach(library IN LISTS arg_PRIVATE)
      target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:${library}>)
    endforeach()
    target_compile_definitions(${target} PUBLIC HAX_HAS_CUDA=$<BOOL:${HAX_HAS_CUDA}>)
    # A sanitized library needs the sanitizer at the final link.
    if(HAX_SANITIZE)
      target_link_options(${target} PUBLIC -fsanitize=address,undefined)
    endif()
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_compile_features(${target} ${scope} cxx_std_20)
  target_include_directories(${target} ${scope}
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include/hax>)
  target_link_libraries(${target} ${scope} ${arg_DEPENDS})
  add_library(hax::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY HAX_LIBRARIES ${target})
endfunction()

# Writes the list of every op folder's gradient checks (ops/gradcheck.h) into the ops library.
function(hax_collect_gradchecks)
  file(GLOB folders LIST_DIRECTORIES true CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/ops/*)
  set(declarations "")
  set(calls "")
  foreach(folder IN LISTS folders)
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
    if(sources)
      get_filename_component(op ${folder} NAME)
      string(APPEND declarations "std::vector<GradCase> ${op}_gradchecks();\n")
      string(APPEND calls "  add(\"${op}\", ${op}_gradchecks());\n")
    endif()
  endforeach()
  configure_file(${CMAKE_SOURCE_DIR}/ops/gradcheck_list.cpp.in ${CMAKE_BINARY_DIR}/generated/gradcheck_list.cpp @ONLY)
  target_sources(hax_ops PRIVATE ${CMAKE_BINARY_DIR}/generated/gradcheck_list.cpp)
endfunction()

# hax_embed(TARGET FUNCTION HEADER files...): compiles text files into a target as `std::span<const EmbeddedText>
# FUNCTION()`, named by their stems.
function(hax_embed target function header)
  set(entries "")
  foreach(path IN LISTS ARGN)
    get_filename_component(stem ${path} NAME_WE)
    file(READ ${path} text)
    string(APPEND entries "    {\"${stem}\", R\"~~~~(${text})~~~~\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/${function}.cpp CONTENT
"#include \"@header@\"

namespace hax {

std::span<const EmbeddedText> @function@() {
  static constexpr EmbeddedText kTexts[] = {
@entries@  };
  return kTexts;
}

}  // namespace hax
" @ONLY)
  target_sources(${target} PRIVATE ${CMAKE_BINARY_DIR}/generated/${function}.cpp)
endfunction()
