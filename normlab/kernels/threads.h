// Threads that share tasks: whoever is free takes the next one, the caller too.
#pragma once
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

// The caller never waits for a thread that has no task.
class Pool {
 public:
  // f(task, thread) for each of `count` tasks, on up to `threads` threads; the caller is thread 0.
  template <class F> static void run(int threads, int count, F f) {
    std::unique_lock<std::mutex> own(one(), std::defer_lock);  // a second caller works alone
    if (threads < 2 || count < 2 || !own.try_lock()) {
      for (int task = 0; task < count; task++) f(task, 0);
      return;
    }
    if (!pool()) pool() = new Pool;  // never deleted: its threads sleep until the process ends
    pool()->share(threads, count, [](void* f, int task, int thread) { (*(F*)f)(task, thread); }, &f);
  }

 private:
  typedef void (*Call)(void*, int, int);
  // The job's number and the next task: one number, so that nobody takes a task of the last job for one of this.
  std::atomic<uint64_t> ticket{0};
  std::atomic<Call> call{nullptr};
  std::atomic<void*> with{nullptr};
  std::atomic<int> count{0}, done{0}, most{0};
  int helpers = 0;
  std::mutex sleeping;
  std::condition_variable wake;

  static Pool*& pool() {
    static Pool* pool = nullptr;
    static int once = pthread_atfork(nullptr, nullptr, [] { Pool::pool() = nullptr; });  // a child has no threads yet
    (void)once;
    return pool;
  }
  static std::mutex& one() {
    static std::mutex mutex;
    return mutex;
  }
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  void share(int threads, int tasks, Call f, void* argument) {
    for (; helpers < threads - 1; helpers++) try {
        std::thread([this, thread = helpers + 1] { help(thread); }).detach();
      } catch (const std::system_error&) {  // there are no more to be had
        break;
      }
    uint64_t job = (ticket.load() >> 32) + 1;
    ticket = (job << 32) - 1;  // no task of the last job can be taken while what follows changes
    call = f, with = argument, count = tasks, done = 0, most = threads;
    {
      std::lock_guard<std::mutex> lock(sleeping);
      ticket = job << 32;
    }
    wake.notify_all();
    work(0);
    for (int spins = 0; done < tasks; spins++) spins < 1000 ? pause() : std::this_thread::yield();
  }
  void work(int thread) {
    for (uint64_t now = ticket;;) {
      Call f = call;
      void* argument = with;
      if ((now & 0xffffffff) >= (uint64_t)count || thread >= most) return;
      if (!ticket.compare_exchange_weak(now, now + 1)) continue;  // `now` is what it is instead
      f(argument, (int)(now & 0xffffffff), thread);
      done++;
      now = ticket;
    }
  }
  void help(int thread) {
    for (uint64_t seen = 0;;) {
      for (int spins = 0; spins < 2000 && (ticket >> 32) == seen; spins++) pause();
      {
        std::unique_lock<std::mutex> lock(sleeping);
        wake.wait(lock, [&] { return (ticket >> 32) != seen; });
      }
      seen = ticket >> 32;
      work(thread);
    }
  }
};
