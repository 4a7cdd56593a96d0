// SPDX-License-Identifier: MIT
// Runs independent tasks on several threads. The results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "interrupt.hpp"

/// Calls work(0) … work(count − 1), each once, on `threads` threads. Meanwhile the calling thread
/// calls watch(number of finished tasks) every 20 ms. After the first exception, no new task is
/// started, and the exception is rethrown. After Ctrl-C, no new task is started, and the function
/// throws std::runtime_error.
inline void parallel(std::size_t count, std::size_t threads,
                     const std::function<void(std::size_t)>& work,
                     const std::function<void(std::size_t)>& watch = {}) {
  std::atomic<std::size_t> next{0}, finished{0}, ended{0};
  std::atomic<bool> stop{false};
  std::mutex lock;
  std::exception_ptr failure;
  const auto take = [&] {
    for (std::size_t i = next++; i < count && !stop && !interrupt::requested(); i = next++) {
      try {
        work(i);
        ++finished;
      } catch (...) {
        const std::lock_guard guard(lock);
        if (!failure) failure = std::current_exception();
        stop = true;
      }
    }
    ++ended;
  };
  threads = std::max<std::size_t>(1, std::min(threads, count));
  {
    std::vector<std::jthread> pool;
    for (std::size_t i = 0; i < threads; ++i) pool.emplace_back(take);
    while (ended < threads) {
      if (watch) watch(finished);
      std::this_thread::sleep_for(std::chrono::milliseconds(ended < threads ? 20 : 0));
    }
  }
  if (failure) std::rethrow_exception(failure);
  if (interrupt::requested())
    throw std::runtime_error("interrupted before all work was done; no file was written");
}
