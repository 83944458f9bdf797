# Unit tests (GoogleTest, one executable without torch and one with it) and end-to-end cases (pytest), all under ctest.
find_package(GTest REQUIRED)

# An entry of ctest is a source file: loading torch takes longer than most of its cases.
function(add_unit_tests target library)
  collect_sources(sources test ${ARGN})
  add_executable(${target} ${sources} tests/unit_main.cpp)
  target_link_libraries(${target} PRIVATE ${library} GTest::gmock warnings)
  target_compile_definitions(${target} PRIVATE BLOCKPTQ_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  foreach(source IN LISTS sources)
    file(RELATIVE_PATH path "${CMAKE_SOURCE_DIR}/src" "${source}")
    string(REGEX REPLACE "\\.cpp$" "" name "${path}")
    add_test(NAME ${name} COMMAND ${target} ${path})
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT 300
      ENVIRONMENT OMP_WAIT_POLICY=passive)  # entries that run at the same time share the processors
  endforeach()
endfunction()
add_unit_tests(core_tests blockptq_core ${core_folders})
add_unit_tests(torch_tests blockptq ${torch_folders})
target_sources(torch_tests PRIVATE tests/same_random_numbers.cpp)
target_precompile_headers(core_tests PRIVATE cmake/test_pch.h)
target_precompile_headers(torch_tests PRIVATE cmake/torch_pch.h cmake/test_pch.h)

file(GLOB python_tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/test_*.py")
foreach(test IN LISTS python_tests)
  get_filename_component(name "${test}" NAME_WE)
  add_test(NAME ${name} COMMAND "${BLOCKPTQ_PYTHON}" -m pytest -q -rs -p no:cacheprovider "${test}")
  set_tests_properties(${name} PROPERTIES LABELS end_to_end TIMEOUT 900
    ENVIRONMENT "BLOCKPTQ_BINARY=$<TARGET_FILE:blockptq_cli>;PYTHONDONTWRITEBYTECODE=1")
endforeach()
# The longest ones start first, so that none of them runs alone at the end.
set_tests_properties(test_ranks test_families test_rotate test_train PROPERTIES COST 100)
