# `cmake --install`: the binary, the libraries, the headers, and a CMake package for find_package(hax). What is installed
# refers neither to the source nor to the build tree and may be moved (tests/package proves it).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

function(hax_install_package)
  get_property(libraries GLOBAL PROPERTY HAX_LIBRARIES)
  install(TARGETS ${libraries} EXPORT haxTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  # The same root-relative paths as in the tree: #include "ops/rms_norm/rms_norm.h".
  foreach(folder engine ops data models train)
    if(EXISTS ${CMAKE_SOURCE_DIR}/${folder})
      install(DIRECTORY ${CMAKE_SOURCE_DIR}/${folder} DESTINATION include/hax FILES_MATCHING PATTERN "*.h")
    endif()
  endforeach()

  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/hax)
  install(EXPORT haxTargets NAMESPACE hax:: DESTINATION ${package_dir})
  configure_package_config_file(${CMAKE_SOURCE_DIR}/third_party/haxConfig.cmake.in
    ${CMAKE_BINARY_DIR}/haxConfig.cmake INSTALL_DESTINATION ${package_dir})
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/haxConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_BINARY_DIR}/haxConfig.cmake ${CMAKE_BINARY_DIR}/haxConfigVersion.cmake
          DESTINATION ${package_dir})
endfunction()
