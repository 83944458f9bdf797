// Precompiled for every translation unit of the library that uses torch.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>
