// Optimisers: parameters and the state of a rule, changed in one pass over memory, which limits them.
//
// All arrays of a call lie one after another on a line of elements, which is cut into ranges: many
// small arrays are shared out among threads like one large one. Ranges are long, as at the end of
// each the processor loses what it has learnt of the streams. Every element is computed by itself, so
// the cuts change no bit.
#include <cmath>

#include "families.h"
#include "parallel.h"
#include "vector_math.h"

namespace fastdl::FASTDL_ISA {

namespace {

// Elements of a block of the sum of squares at least, and those that are worth a thread.
constexpr int64_t kBlock = 16 * 1024, kGrain = 16 * 1024;
// Arrays start at its multiples, so that a range ends between vectors and lines.
constexpr int64_t kUnit = 64;

// --- the rules: w, first and second from the gradient g -----------------------------

// The numbers of a call, in the precision of its arrays.
template <class T>
struct Numbers {
  explicit Numbers(const OptimizerStep& s)
      : lr(static_cast<T>(s.lr)),
        beta1(static_cast<T>(s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        rest1(static_cast<T>(1 - s.beta1)),
        rest2(static_cast<T>(1 - s.beta2)),
        eps(static_cast<T>(s.eps)) {
    // The decaying averages start at zero: divided by 1 - beta^step they are averages.
    const double steps = static_cast<double>(s.step);
    unbiased_lr = static_cast<T>(s.lr / (1 - std::pow(s.beta1, steps)));
    unbias_root = static_cast<T>(1 / std::sqrt(1 - std::pow(s.beta2, steps)));
  }
  T lr, beta1, beta2, rest1, rest2, eps, unbiased_lr, unbias_root;
};

template <class T>
struct Element {
  Vector<T> w, g, first, second;
};

struct Sgd {
  static constexpr int kStates = 0;
  template <class T>
  FASTDL_INLINE void apply(Element<T>& e, const Numbers<T>& n) {
    e.w -= n.lr * e.g;
  }
};

struct Momentum {
  static constexpr int kStates = 1;
  template <class T>
  FASTDL_INLINE void apply(Element<T>& e, const Numbers<T>& n) {
    e.first = n.beta1 * e.first - n.lr * e.g;
    e.w += e.first;
  }
};

struct Nesterov {
  static constexpr int kStates = 1;
  template <class T>
  FASTDL_INLINE void apply(Element<T>& e, const Numbers<T>& n) {
    e.first = n.beta1 * e.first - n.lr * e.g;
    e.w += n.beta1 * e.first - n.lr * e.g;
  }
};

struct AdaGrad {
  static constexpr int kStates = 1;
  template <class T>
  FASTDL_INLINE void apply(Element<T>& e, const Numbers<T>& n) {
    e.first += e.g * e.g;
    e.w -= n.lr * e.g / (square_root<T>(e.first) + n.eps);
  }
};

struct RmsProp {
  static constexpr int kStates = 1;
  template <class T>
  FASTDL_INLINE void apply(Element<T>& e, const Numbers<T>& n) {
    e.first = n.beta1 * e.first + n.rest1 * (e.g * e.g);
    e.w -= n.lr * e.g / (square_root<T>(e.first) + n.eps);
  }
};

struct Adam {
  static constexpr int kStates = 2;
  template <class T>
  FASTDL_INLINE void apply(Element<T>& e, const Numbers<T>& n) {
    e.first = n.beta1 * e.first + n.rest1 * e.g;
    e.second = n.beta2 * e.second + n.rest2 * (e.g * e.g);
    e.w -= n.unbiased_lr * e.first / (square_root<T>(e.second) * n.unbias_root + n.eps);
  }
};

// --- an array -------------------------------------------------------------------------

// sign(w) * value, NaN for NaN.
template <class T>
FASTDL_INLINE Vector<T> with_sign(T value, Vector<T> w) {
  return w > 0 ? splat(value) : (w < 0 ? splat(-value) : w);
}

// Elements [begin, end) of p.
template <class T, class Rule, bool penalised>
void update(const Parameter& p, const OptimizerStep& s, const Numbers<T>& numbers, int64_t begin,
            int64_t end) {
  T* w = static_cast<T*>(p.values);
  const T* g = static_cast<const T*>(p.grad);
  T* first = static_cast<T*>(p.first);
  T* second = static_cast<T*>(p.second);
  const T scale = static_cast<T>(s.grad_scale), keep = static_cast<T>(1 - s.lr * p.decay);
  const T l1 = static_cast<T>(p.l1), l2 = static_cast<T>(p.l2);
  auto at = [&](int64_t i, int64_t n) {
    Element<T> e{load_some(w + i, n, T(0)), load_some(g + i, n, T(0)) * scale, {}, {}};
    if constexpr (Rule::kStates > 0) e.first = load_some(first + i, n, T(0));
    if constexpr (Rule::kStates > 1) e.second = load_some(second + i, n, T(0));
    if constexpr (penalised) e.g += l2 * e.w + with_sign<T>(l1, e.w);
    e.w *= keep;
    Rule::template apply<T>(e, numbers);
    store_some<T>(w + i, n, e.w);
    if constexpr (Rule::kStates > 0) store_some<T>(first + i, n, e.first);
    if constexpr (Rule::kStates > 1) store_some<T>(second + i, n, e.second);
  };
  int64_t i = begin;
  for (; i + kLanes<T> <= end; i += kLanes<T>) at(i, int64_t{kLanes<T>});
  if (i < end) at(i, end - i);
}

// --- all arrays -----------------------------------------------------------------------

template <class T, class Rule>
void update_all(const OptimizerStep& s, Parameter* arrays, int64_t count, int threads) {
  const Numbers<T> numbers(s);
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    arrays[i].start = total;
    total += ceil_div(arrays[i].size, kUnit) * kUnit;
  }
  parallel_range(total / kUnit, kGrain / kUnit, threads, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kUnit, end = last * kUnit;
    for (int64_t i = 0; i < count && arrays[i].start < end; ++i) {
      const Parameter& p = arrays[i];
      const int64_t from = max(begin - p.start, 0), to = min(end - p.start, p.size);
      if (from >= to) continue;
      if (p.l1 != 0 || p.l2 != 0) update<T, Rule, true>(p, s, numbers, from, to);
      else update<T, Rule, false>(p, s, numbers, from, to);
    }
  });
}

template <class T>
void update_by_rule(const OptimizerStep& s, Parameter* arrays, int64_t count, int threads) {
  switch (s.rule) {
    case kSgd: return update_all<T, Sgd>(s, arrays, count, threads);
    case kMomentum: return update_all<T, Momentum>(s, arrays, count, threads);
    case kNesterov: return update_all<T, Nesterov>(s, arrays, count, threads);
    case kAdaGrad: return update_all<T, AdaGrad>(s, arrays, count, threads);
    case kRmsProp: return update_all<T, RmsProp>(s, arrays, count, threads);
    case kAdam: return update_all<T, Adam>(s, arrays, count, threads);
  }
}

// --- the norm -------------------------------------------------------------------------

// In double precision: the square of a float may be beyond a float's range.
template <class T>
double sum_of_squares_in(const T* x, int64_t size) {
  constexpr int sums = 4;  // to hide an addition's latency
  Vector<double> sum[sums] = {};
  auto add = [&](Vector<T> v, int to) {
    if constexpr (sizeof(T) == 8) sum[to] += v * v;
    else {
      VectorOfLanes<T, kLanes<T> / 2> half[2];
      memcpy(half, &v, sizeof v);
      for (int h = 0; h < 2; ++h) {
        const Vector<double> wide = __builtin_convertvector(half[h], Vector<double>);
        sum[(to + h) % sums] += wide * wide;
      }
    }
  };
  constexpr int64_t step = sums * kLanes<T>;
  int64_t i = 0;
  for (; i + step <= size; i += step)
    for (int v = 0; v < sums; ++v) add(load(x + i + v * kLanes<T>), v);
  for (; i < size; i += kLanes<T>) add(load_some(x + i, size - i, T(0)), 0);
  for (int v = 1; v < sums; ++v) sum[0] += sum[v];
  return horizontal_sum<double>(sum[0]);
}

// Blocks by the size alone, summed in their order: the same bits for every number of threads.
template <class T>
double sum_of_all_squares(const T* x, int64_t size, int threads) {
  constexpr int64_t most = 512;
  const int64_t block = max(kBlock, ceil_div(ceil_div(size, most), kUnit) * kUnit);
  const int64_t blocks = ceil_div(size, block);
  double sums[most];
  parallel_for(blocks, worth_threads(size, kGrain, threads), [&](int64_t b) {
    sums[b] = sum_of_squares_in(x + b * block, min(block, size - b * block));
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += sums[b];
  return total;
}

}  // namespace

void optimizer_step(Dtype dtype, const OptimizerStep* step, Parameter* arrays, int64_t count, int threads) {
  // A velocity that nothing feeds decays to denormals, and would stay there.
  const FloatMode mode(dtype);
  if (dtype == kFloat32) update_by_rule<float>(*step, arrays, count, threads);
  else update_by_rule<double>(*step, arrays, count, threads);
}

double sum_of_squares(Dtype dtype, const void* x, int64_t size, int threads) {
  // All in double precision, where denormals stay.
  const FloatMode mode(kFloat64);
  if (dtype == kFloat32) return sum_of_all_squares(static_cast<const float*>(x), size, threads);
  return sum_of_all_squares(static_cast<const double*>(x), size, threads);
}

}  // namespace fastdl::FASTDL_ISA
