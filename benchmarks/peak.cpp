// As many fused multiply-adds as a core does: 3 chains for each of the units, none of which waits for memory.
typedef float v __attribute__((vector_size(4 * LANES)));
constexpr int CHAINS = REGISTERS > 16 ? 24 : 12;

// `count` rounds of CHAINS vectors. Returns their sum, so that no compiler leaves them out.
extern "C" float multiply_add(long count) {
  v sums[CHAINS], factor = 0.999f - v{}, term = 1e-3f - v{};
  for (int i = 0; i < CHAINS; i++) sums[i] = (float)i - v{};
  for (long k = 0; k < count; k++)
    _Pragma("GCC unroll 24") for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * factor + term;
  float sum = 0;
  for (int i = 0; i < CHAINS; i++)
    for (int l = 0; l < LANES; l++) sum += sums[i][l];
  return sum;
}
extern "C" long flops_of_a_round() { return 2L * CHAINS * LANES; }
