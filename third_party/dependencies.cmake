# How each dependency is found. Nothing is copied in and nothing is downloaded: the packages come from the
# distribution (third_party/apt-packages.txt, installed by tools/install_deps), or from a folder that
# `tools/install_deps --prefix .deps` filled, which comes first.
set(HAX_DEPS ${CMAKE_SOURCE_DIR}/.deps CACHE PATH "A folder filled by tools/install_deps --prefix")
if(EXISTS ${HAX_DEPS}/PACKAGES)
  message(STATUS "Libraries from ${HAX_DEPS}")
  list(PREPEND CMAKE_PREFIX_PATH ${HAX_DEPS})
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)

# Eigen as a SYSTEM include: our warnings are errors, its warnings are not ours. Its own threads stay off, so that no
# result depends on the number of threads.
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
add_library(hax_eigen INTERFACE)
get_target_property(eigen_include Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
target_include_directories(hax_eigen SYSTEM INTERFACE ${eigen_include})
target_compile_definitions(hax_eigen INTERFACE EIGEN_DONT_PARALLELIZE EIGEN_MPL2_ONLY)

# xxHash compiled into the files that include it: nothing to link, here or in programs that use the installed package.
find_path(XXHASH_INCLUDE xxhash.h REQUIRED)
add_library(hax_xxhash INTERFACE)
target_include_directories(hax_xxhash SYSTEM INTERFACE ${XXHASH_INCLUDE})
target_compile_definitions(hax_xxhash INTERFACE XXH_INLINE_ALL)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # Its AVX-512 path meets a false "used uninitialized" of g++ 12; SSE2 reaches 32 GB/s where that reaches 36.
  target_compile_definitions(hax_xxhash INTERFACE XXH_VECTOR=XXH_SSE2)
endif()

if(HAX_BUILD_TESTS)
  find_package(doctest REQUIRED)
endif()

# What the engine links for CUDA, and what only its own sources see.
set(HAX_CUDA_LIBRARIES "")
set(HAX_CUDA_PRIVATE "")
if(HAX_CUDA AND HAX_EMULATE_CUDA)
  message(FATAL_ERROR "HAX_CUDA and HAX_EMULATE_CUDA exclude each other")
endif()
if(HAX_CUDA)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90 CACHE STRING "Compute capabilities to compile for")
  endif()
  enable_language(CUDA)
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake 3.25 does not know that nvcc 12 learned it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  find_package(CUDAToolkit REQUIRED)
  set(HAX_CUDA_LIBRARIES CUDA::cudart_static CUDA::cublas)
elseif(HAX_EMULATE_CUDA)
  # Fibers; cuBLAS is played by Eigen.
  find_package(Boost 1.74 REQUIRED COMPONENTS context)
  set(HAX_CUDA_LIBRARIES Boost::context)
  set(HAX_CUDA_PRIVATE hax_eigen)
endif()
