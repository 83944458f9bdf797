# Imports LibTorch from the torch wheel of the project's virtual environment.
#
# find_package(Torch) of a CUDA wheel insists on a CUDA toolkit; this asks Python where torch lives and imports
# what is there. Targets:
#   torch::cpu    libtorch_cpu, libc10 and ATen's OpenMP runtime
#   torch::cuda   libtorch_cuda (only where BLOCKPTQ_CUDA is on), defines BLOCKPTQ_CUDA
#   torch::fmt    {fmt}, header-only, without the rest of torch's headers
set(BLOCKPTQ_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python whose site-packages hold torch")

execute_process(
  COMMAND "${BLOCKPTQ_PYTHON}" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])"
  OUTPUT_VARIABLE site_packages OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE python_failed)
if(python_failed OR NOT EXISTS "${site_packages}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "no torch wheel under ${BLOCKPTQ_PYTHON}: run `make setup` first")
endif()
set(torch_root "${site_packages}/torch")
file(GLOB nvidia_library_dirs "${site_packages}/nvidia/*/lib")

find_package(Threads REQUIRED)
add_library(torch::cpu INTERFACE IMPORTED)
target_include_directories(torch::cpu SYSTEM INTERFACE
  "${torch_root}/include" "${torch_root}/include/torch/csrc/api/include")
target_link_libraries(torch::cpu INTERFACE
  "${torch_root}/lib/libtorch_cpu.so" "${torch_root}/lib/libc10.so" Threads::Threads)
# The CUDA libraries behind libtorch_cpu are found at run time through torch's own RUNPATH.
target_link_options(torch::cpu INTERFACE "LINKER:--allow-shlib-undefined")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # at::parallel_for is a header template; it runs on the pool of torch's own libgomp.
  target_compile_options(torch::cpu INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  target_link_libraries(torch::cpu INTERFACE "${torch_root}/lib/libgomp.so.1")
endif()
list(APPEND CMAKE_BUILD_RPATH "${torch_root}/lib" ${nvidia_library_dirs})

file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/include")
file(CREATE_LINK "${torch_root}/include/fmt" "${CMAKE_BINARY_DIR}/include/fmt" SYMBOLIC)
add_library(torch::fmt INTERFACE IMPORTED)
target_include_directories(torch::fmt SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/include")
target_compile_definitions(torch::fmt INTERFACE FMT_HEADER_ONLY)

# CUDA: torch's own kernels, and no code of ours: on when the whole set of CUDA wheels is there, otherwise left out.
file(GLOB cublas_library "${site_packages}/nvidia/*/lib/libcublasLt.so.*")
if(cublas_library AND EXISTS "${torch_root}/lib/libtorch_cuda.so")
  set(cuda_default ON)
else()
  set(cuda_default OFF)
endif()
option(BLOCKPTQ_CUDA "Build the CUDA path" ${cuda_default})
if(BLOCKPTQ_CUDA)
  add_library(torch::cuda INTERFACE IMPORTED)
  target_compile_definitions(torch::cuda INTERFACE BLOCKPTQ_CUDA=1)
  # libtorch_cuda registers its operators when it is loaded: it must be linked though no symbol asks for it.
  target_link_libraries(torch::cuda INTERFACE
    "-Wl,--no-as-needed,${torch_root}/lib/libtorch_cuda.so,--as-needed")
endif()
message(STATUS "blockptq: CUDA path ${BLOCKPTQ_CUDA}")
