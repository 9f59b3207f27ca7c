// The instruction sets that were built, and which of them run here.
#include "fastdl_kernels.h"

namespace fastdl {

namespace baseline {
extern const Table table;
}
#if FASTDL_X86
namespace avx2 {
extern const Table table;
}
namespace avx512 {
extern const Table table;
}

static const Table* const tables[] = {&baseline::table, &avx2::table, &avx512::table};

// The compiler's run-time library asks the processor and the operating system.
bool table_runs_here(int index) {
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return index == 0 || (index == 1 && avx2) || (index == 2 && avx512);
}
#else
static const Table* const tables[] = {&baseline::table};

bool table_runs_here(int index) { return index == 0; }
#endif

int table_count() { return sizeof tables / sizeof *tables; }

const Table* table_at(int index) { return tables[index]; }

}  // namespace fastdl
