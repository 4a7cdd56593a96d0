// SPDX-License-Identifier: MIT
// The memory shared by a game and its player. The transport (C) and game.hpp (C++) include this.
//
// The two sides take turns. The game fills `frame`, increments `frames` and sleeps until `keys`
// increases. The player writes `key`, increments `keys` and sleeps until `frames` increases. Each
// counter is a futex. Compared with a pair of sockets this saves the copies. If the frame is there
// before the player waits, it also saves the player's system call.
#ifndef RETAIN_NETHACK_LINK_H
#define RETAIN_NETHACK_LINK_H

#include <stdint.h>

enum { nethack_frame_capacity = 1 << 16 };

struct nethack_link {
  uint32_t keys;           // keys sent so far
  uint32_t key;            // the last of them
  uint32_t frames;         // frames shown so far
  uint32_t frame_size;     // bytes in the last of them
  uint32_t frame_partial;  // 1: the frame did not fit; the next key is only a request for the rest
  uint32_t ended;          // 1: the game has left by itself, this was its last frame
  uint32_t player_asleep;  // 1: the game must wake the player when a frame is there
  unsigned char frame[nethack_frame_capacity];
};

#endif
