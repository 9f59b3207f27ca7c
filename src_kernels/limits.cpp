// What the machine can do at most: the roof of every roofline.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Enough independent sums to hide the latency of a multiply-add (4 or 5 cycles, 2 a cycle), few
// enough to leave registers for the factor and the term where there are 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kSums = 16;
#else
constexpr int kSums = 12;
#endif

template <class T>
double multiply_add_loop(int64_t operations) {
  Vector<T> sum[kSums];
  for (int i = 0; i < kSums; ++i) sum[i] = splat(static_cast<T>(i));
  Vector<T> factor = splat(static_cast<T>(0.5)), term = splat(static_cast<T>(0.25));
  // Not known to the compiler, so that it can leave nothing out.
  asm volatile("" : "+m"(factor), "+m"(term));
  for (int64_t done = 0; done < operations; done += 2 * kSums * kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sum[i] = sum[i] * factor + term;
  }
  double total = 0;
  for (int i = 0; i < kSums; ++i) total += horizontal_sum<T>(sum[i]);
  return total;
}

// A store past the caches: without it, x86 reads every line before it is written.
FASTDL_INLINE void store_past_caches(double* p, Vector<double> v) {
#if defined(__AVX512F__)
  _mm512_stream_pd(p, reinterpret_cast<__m512d>(v));
#elif defined(__AVX2__)
  _mm256_stream_pd(p, reinterpret_cast<__m256d>(v));
#elif defined(__SSE2__)
  _mm_stream_pd(p, reinterpret_cast<__m128d>(v));
#else
  store(p, v);
#endif
}

constexpr int64_t kBlock = 65536;

}  // namespace

double multiply_add(Dtype dtype, int64_t operations, int threads) {
  double total = 0;
  const Caller caller(threads);
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    caller.make_room();
    total += dtype == kFloat32 ? multiply_add_loop<float>(operations)
                               : multiply_add_loop<double>(operations);
  }
  return total;
}

double read_bytes(const void* data, int64_t size, int threads) {
  const double* numbers = static_cast<const double*>(data);
  double total = 0;
  const Caller caller(threads);
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    caller.make_room();
#pragma omp for schedule(static)
    for (int64_t block = 0; block < size / kBlock; ++block) {
      Vector<double> sum[8] = {};
      const double* from = numbers + block * (kBlock / 8);
      for (int64_t i = 0; i < kBlock / 8; i += 8 * kLanes<double>)
        for (int v = 0; v < 8; ++v) sum[v] += load(from + i + v * kLanes<double>);
      for (int v = 0; v < 8; ++v) total += sum[v][0];
    }
  }
  return total;
}

void write_bytes(const void* from, void* to, int64_t size, int threads) {
  const Caller caller(threads);
#pragma omp parallel num_threads(threads)
  {
    caller.make_room();
#pragma omp for schedule(static)
    for (int64_t block = 0; block < size / kBlock; ++block) {
      double* target = static_cast<double*>(to) + block * (kBlock / 8);
      if (from == nullptr) {
        for (int64_t i = 0; i < kBlock / 8; i += kLanes<double>)
          store_past_caches(target + i, splat(1.0));
      } else {
        const double* source = static_cast<const double*>(from) + block * (kBlock / 8);
        for (int64_t i = 0; i < kBlock / 8; i += kLanes<double>)
          store_past_caches(target + i, load(source + i));
      }
    }
#if defined(__SSE2__)
    _mm_sfence();
#endif
  }
}

}  // namespace fastdl::FASTDL_ISA
