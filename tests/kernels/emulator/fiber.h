// Threads of a block as fibers on one host thread, barriers among them, and errors where a barrier can never be passed.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

struct dim3 {
  unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

constexpr std::size_t STACK = 256 << 10;

struct Slots {  // what the lanes of a warp show one another
  alignas(16) unsigned char bytes[32][64];
  template <class T>
  T get(int lane) const {
    T value;
    std::memcpy(&value, bytes[lane], sizeof value);
    return value;
  }
};

struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
  const char* what = "";
  int any = 0, any_before = 0;
  Slots slots[2];  // a lane that is one collective ahead writes the other
};

struct Copy {  // cp.async: on its way until it is waited for
  void* to;
  const void* from;
  bool valid;
};

struct Fiber {
  ucontext_t start;
  jmp_buf resume;
  bool done = false;
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<void*> stacks;  // kept from launch to launch
  jmp_buf scheduler;
  unsigned current = 0;
  Barrier block;
  std::map<std::pair<unsigned, unsigned>, std::unique_ptr<Barrier>> warps;  // by warp and mask
  std::vector<unsigned char> shared;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::uint64_t random = 1;
  std::string error;
};
static Machine machine;

inline Fiber& self() { return machine.fibers[machine.current]; }
inline int lane() { return int(machine.current % 32); }

inline void yield() {
  Fiber& fiber = self();
  if (!_setjmp(fiber.resume)) _longjmp(machine.scheduler, 1);
}

[[noreturn]] inline void fail(const std::string& why) {
  if (machine.error.empty())
    machine.error = why + " (block " + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", thread " +
                    std::to_string(machine.current) + ")";
  _longjmp(machine.scheduler, 1);
}

inline void arrive(Barrier& barrier, const char* what) {
  if (barrier.arrived && std::strcmp(barrier.what, what))
    fail(std::string("threads diverge: ") + what + " meets " + barrier.what);
  barrier.what = what;
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    barrier.generation++;
    barrier.any_before = std::exchange(barrier.any, 0);
    return;
  }
  while (barrier.generation == generation) yield();
}

inline int block_any(int predicate) {
  machine.block.any |= predicate != 0;
  arrive(machine.block, "__syncthreads_or");
  return machine.block.any_before;
}

inline void block_barrier() { arrive(machine.block, "__syncthreads"); }

template <class T>
inline const Slots& exchange(unsigned mask, const char* what, const T& mine) {
  static_assert(sizeof(T) <= 64, "a slot is too small");
  const unsigned warp = machine.current / 32, first = warp * 32;
  const unsigned last = machine.fibers.size() - first, present = last >= 32 ? ~0u : (1u << last) - 1;
  if (!(mask >> lane() & 1)) fail(std::string(what) + " by a lane outside its mask");
  auto& barrier = machine.warps[{warp, mask & present}];
  if (!barrier) barrier = std::make_unique<Barrier>();
  barrier->expected = unsigned(__builtin_popcount(mask & present));
  Slots& slots = barrier->slots[barrier->generation % 2];
  std::memcpy(slots.bytes[lane()], &mine, sizeof mine);
  arrive(*barrier, what);
  return slots;
}

inline unsigned char* dynamic_shared() { return machine.shared.data(); }

inline void trampoline() {
  if (!_setjmp(self().resume)) _longjmp(machine.scheduler, 1);
  machine.body(machine.arguments);
  self().done = true;
  _longjmp(machine.scheduler, 1);
}

inline void* stack_of(std::size_t index) {
  while (machine.stacks.size() <= index) {
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    machine.stacks.push_back(stack);
  }
  return machine.stacks[index];
}

inline void start(Fiber& fiber, unsigned index) {
  machine.current = index;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = stack_of(index);
  fiber.start.uc_stack.ss_size = STACK;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, trampoline, 0);
  if (!_setjmp(machine.scheduler)) setcontext(&fiber.start);
}

inline unsigned draw(unsigned below) {  // xorshift64
  machine.random ^= machine.random << 13;
  machine.random ^= machine.random >> 7;
  machine.random ^= machine.random << 17;
  return unsigned(machine.random % below);
}

inline void resume(unsigned index) {
  machine.current = index;
  threadIdx = {index % blockDim.x, index / blockDim.x % blockDim.y, index / (blockDim.x * blockDim.y)};
  if (!_setjmp(machine.scheduler)) _longjmp(machine.fibers[index].resume, 1);
}

inline std::uint64_t progress() {
  std::uint64_t sum = std::uint64_t(machine.block.generation) * 2048 + machine.block.arrived;
  for (auto& [key, barrier] : machine.warps) sum += std::uint64_t(barrier->generation) * 64 + barrier->arrived;
  return sum;
}

inline void describe_deadlock() {
  unsigned done = 0;
  for (const Fiber& fiber : machine.fibers) done += fiber.done;
  std::string where;
  if (machine.block.arrived) where = std::string(machine.block.what) + " reached by " + std::to_string(machine.block.arrived);
  for (auto& [key, barrier] : machine.warps)
    if (barrier->arrived)
      where += std::string(where.empty() ? "" : ", ") + barrier->what + " reached by " + std::to_string(barrier->arrived) +
               " of " + std::to_string(barrier->expected) + " lanes of warp " + std::to_string(key.first);
  machine.error = where + " of " + std::to_string(machine.fibers.size()) + " threads, " + std::to_string(done) +
                  " have returned (block " + std::to_string(blockIdx.x) + ")";
}

// One block, in an order that the seed shuffles, until all have returned or none can go on.
inline void run_block(unsigned threads) {
  machine.fibers.clear();
  machine.fibers.resize(threads);
  machine.warps.clear();
  machine.block = Barrier();
  machine.block.expected = threads;
  std::fill(machine.shared.begin(), machine.shared.end(), 0xff);
  for (unsigned i = 0; i < threads; i++) start(machine.fibers[i], i);
  std::vector<unsigned> order(threads);
  for (unsigned i = 0; i < threads; i++) order[i] = i;
  while (!order.empty() && machine.error.empty()) {
    const std::uint64_t before = progress();
    const std::size_t waiting = order.size();
    for (std::size_t i = waiting; i > 1; i--) std::swap(order[i - 1], order[draw(unsigned(i))]);
    std::vector<unsigned> left;
    for (unsigned index : order) {
      if (machine.error.empty()) resume(index);
      if (!machine.fibers[index].done) left.push_back(index);
    }
    order.swap(left);
    if (machine.error.empty() && !order.empty() && order.size() == waiting && progress() == before) describe_deadlock();
  }
}

template <class... P, std::size_t... I>
inline void apply(void (*kernel)(P...), void** values, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<P>*>(values[I])...);
}

template <auto KERNEL>
struct Call;
template <class... P, void (*KERNEL)(P...)>
struct Call<KERNEL> {
  static void body(void* values) { apply(KERNEL, static_cast<void**>(values), std::index_sequence_for<P...>()); }
  static constexpr int count = sizeof...(P);
  static constexpr std::size_t sizes[] = {sizeof(P)..., 0};
};

// The error's text, or nullptr. sizes: bytes of each argument, which must be the parameters'.
template <auto KERNEL>
const char* launch(const unsigned* grid, const unsigned* block, unsigned shared_bytes, void** values,
                   const unsigned* sizes, int count, std::uint64_t seed) {
  machine.error.clear();
  if (count != Call<KERNEL>::count) return "wrong number of arguments";
  for (int i = 0; i < count; i++)
    if (sizes[i] != Call<KERNEL>::sizes[i]) {
      machine.error = "argument " + std::to_string(i) + " has " + std::to_string(sizes[i]) + " bytes, the parameter " +
                      std::to_string(Call<KERNEL>::sizes[i]);
      return machine.error.c_str();
    }
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  machine.random = seed * 0x9e3779b97f4a7c15ull + 1;
  machine.shared.assign(shared_bytes, 0xff);
  machine.shared.shrink_to_fit();
  machine.body = Call<KERNEL>::body;
  machine.arguments = values;
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0] && machine.error.empty(); x++) {
        blockIdx = {x, y, z};
        run_block(block[0] * block[1] * block[2]);
      }
  return machine.error.empty() ? nullptr : machine.error.c_str();
}

}  // namespace emulated

#define EMULATED_ENTRY(name)                                                                                      \
  extern "C" const char* run_##name(const unsigned* grid, const unsigned* block, unsigned shared, void** values, \
                                    const unsigned* sizes, int count, std::uint64_t seed) {                       \
    return emulated::launch<&name>(grid, block, shared, values, sizes, count, seed);                              \
  }
